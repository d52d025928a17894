"""FullyShardedDataParallel with its scaler: processes stay together after an overflow in one shard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch was built without torch.distributed"),
]

RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch, plain_loop as plain
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
network = FullyShardedDataParallel(plain.model(), device_id=torch.device("cpu"))
optimizer = plain.optimizer_of(network, grad_scale_in_step=sys.argv[2] == "True")
scaler = ShardedGradScaler("cpu", init_scale=2.0**8, growth_interval=1000)
for step in range(20):
    optimizer.zero_grad()
    scaler.scale(plain.loss_of(network, plain.batches()[step])).backward()
    if step in (3, 7) and rank == step % 2:
        for p in network.parameters():
            if p.grad is not None and p.grad.numel():
                p.grad.view(-1)[0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
try:
    optimizer.release_gradients(process_local=True)
    refused = False
except RuntimeError:
    refused = True
found = [optimizer.applied_steps, scaler.get_scale(), refused]
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump(found, file)
torch.distributed.destroy_process_group()
"""


def run(folder: Path, flag: bool) -> subprocess.CompletedProcess[str]:
    script = folder / "run.py"
    script.write_text(RUN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [*launch, str(folder), str(flag)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_ranks_stay_together_after_an_overflow_in_one_shard(tmp_path: Path) -> None:
    done = run(tmp_path, flag=False)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second == [18, 2.0**6, True]


def test_a_step_that_would_skip_in_one_process_alone_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, flag=True)
    assert done.returncode != 0
    assert "grad_scale_in_step=False" in done.stderr
