"""Sharded runs that are killed and started again, by hand and by torchrun."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parents[1] / "support"
STEPS, NEVER = 18, 1000


def started(command: list[str], **variables: str) -> subprocess.Popen[str]:
    paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(folder: Path, killed_at: int) -> list[tuple[int, str]]:
    """Exit codes of two processes, and what they printed."""
    store = folder / f"store-{len(list(folder.glob('store-*')))}"
    processes = [
        started(
            ["-m", "resumable", str(folder), str(STEPS), str(killed_at)],
            RANK=str(rank),
            WORLD_SIZE="2",
            STORE=f"{store.as_uri()}?rank={rank}&world_size=2",
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, printed, strict=True)]


def weights_in(text: str) -> list[Any]:
    """Of the resumed run, and of one that was never interrupted."""
    resumed, unbroken = (ast.literal_eval(line) for line in text.splitlines() if line.startswith("[[["))
    return [resumed, unbroken]


def test_killed_between_two_steps(tmp_path: Path) -> None:
    assert {code for code, _ in run(tmp_path, killed_at=13)} == {-signal.SIGKILL}
    for code, text in run(tmp_path, killed_at=13):
        assert code == 0, text
        assert "goes on at 10 of 2\n" in text
        resumed, unbroken = weights_in(text)
        assert resumed == unbroken


def test_torchrun_goes_on_with_fewer_processes(tmp_path: Path) -> None:
    """Two agents with one process each. One is killed with its process, and the other starts its own again."""
    port = 20000 + os.getpid() % 20000
    agent = ["-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3"]
    agent += ["--monitor-interval=0.1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}"]
    agent += ["--rdzv-id=resumable", "--rdzv-conf=last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=2"]
    agents = []
    try:
        for killed_at in (NEVER, 13):  # the first agent keeps the list of all, and lives
            agents.append(started([*agent, "-m", "resumable", str(tmp_path), str(STEPS), str(killed_at)]))
            time.sleep(1.0)
        printed = [process.communicate(timeout=180)[0] for process in agents]
    finally:
        for process in agents:
            process.kill()
    assert [process.returncode for process in agents] == [0, -signal.SIGKILL], printed
    assert "goes on at 10 of 1" in printed[0], printed
    for own, other in zip(*weights_in(printed[0]), strict=True):
        torch.testing.assert_close(torch.tensor(own), torch.tensor(other), rtol=1e-5, atol=1e-6)
