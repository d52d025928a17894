"""Accelerate, in one process and in two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate")

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, GradientState, PartialState

import plain_loop as plain
from clr_native import FusedCyclicSGD

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of accelerate, about itself


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Any:
    """Its settings are the process's."""
    yield
    for each in (AcceleratorState, GradientState, PartialState):
        each._reset_state()


class Run:
    """A training under Accelerate, with the optimizer's scheduler in Accelerate's slot."""

    def __init__(self, network: Any = None, optimizer: Any = None, **settings: Any) -> None:
        self.accelerator = Accelerator(cpu=True, **settings)
        network = plain.model() if network is None else network
        self.fused: FusedCyclicSGD = plain.optimizer_of(network) if optimizer is None else optimizer
        prepared = self.accelerator.prepare(network, self.fused, plain.loader(), self.fused.as_scheduler())
        self.network, self.optimizer, self.loader, self.scheduler = prepared
        self.rates: list[float] = []

    def epochs(self, count: int = plain.EPOCHS, max_norm: float | None = None) -> None:
        for _ in range(count):
            for batch in self.loader:
                with self.accelerator.accumulate(self.network):
                    self.accelerator.backward(plain.loss_of(self.network, batch))
                    if max_norm is not None and self.accelerator.sync_gradients:
                        self.accelerator.clip_grad_norm_(self.network.parameters(), max_norm)
                    self.optimizer.step()
                    self.rates += self.scheduler.get_last_lr()
                    self.scheduler.step()
                    self.optimizer.zero_grad()


def test_weights_and_logs_are_the_plain_loops() -> None:
    run = Run()
    run.epochs()
    plain.assert_same(run.network, plain.trained())
    assert run.rates == plain.RATES[:-1]
    assert run.optimizer.optimizer is run.fused


def test_a_run_resumed_in_mid_cycle_is_the_unbroken_one(tmp_path: Path) -> None:
    run = Run()
    run.epochs(1)
    run.accelerator.save_state(str(tmp_path))
    resumed = Run()
    resumed.accelerator.load_state(str(tmp_path))
    resumed.epochs(plain.EPOCHS - 1)
    plain.assert_same(resumed.network, plain.trained())
    assert resumed.rates == plain.RATES[plain.BATCHES : -1]


def test_accumulation_clipping_and_bfloat16() -> None:
    run = Run(gradient_accumulation_steps=4)
    run.epochs()
    network = plain.model()
    plain.train(network, plain.optimizer_of(network), range(plain.STEPS // 4), accumulate=4)
    plain.assert_same(run.network, network)
    run = Run()
    run.epochs(max_norm=0.5)
    network = plain.model()
    optimizer = plain.optimizer_of(network)

    def clip(*_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)

    optimizer.register_step_pre_hook(clip)
    plain.train(network, optimizer)
    plain.assert_same(run.network, network)


@pytest.mark.parametrize("flag", [False, True])
def test_a_skip_is_known_unless_the_step_itself_skips(flag: bool) -> None:
    """With grad_scale_in_step Accelerate does not hear of it, as with torch's fused optimizers."""
    Accelerator(cpu=True)
    network = plain.model()
    optimizer = plain.optimizer_of(network, grad_scale_in_step=flag)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    wrapper = AcceleratedOptimizer(optimizer, scaler=scaler)
    for value, skipped in ((1.0, False), (float("inf"), True), (1.0, False)):
        scaler.scale(torch.ones(()))
        for p in network.parameters():
            p.grad = torch.full_like(p, value)
        wrapper.step()
        assert wrapper.step_was_skipped is (skipped and not flag)
    assert (optimizer.applied_steps, optimizer.skipped_steps) == (2, int(flag))


def test_state_and_groups_go_through_the_wrapper() -> None:
    Accelerator(cpu=True)
    network = plain.model()
    optimizer = plain.optimizer_of(network)
    wrapper = AcceleratedOptimizer(optimizer, scaler=None)
    optimizer.param_groups[0]["name"], optimizer.defaults["name"] = "all", "none"
    plain.train(network, wrapper, range(5))
    saved = wrapper.state_dict()
    plain.train(network, wrapper, range(5, 9))
    wrapper.load_state_dict(saved)
    assert (optimizer.applied_steps, optimizer.param_groups[0]["name"]) == (5, "all")
    assert wrapper.param_groups is optimizer.param_groups
    wrapper.optimizer.max_grad_norm = 1.0  # set on the wrapper it would stay there, as the guide says
    assert optimizer.max_grad_norm == 1.0


TWO = """
import sys, warnings
warnings.simplefilter("ignore")
import torch, plain_loop as plain
from accelerate import Accelerator

accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
network = plain.model()
fused = plain.optimizer_of(network)
try:
    fused.release_gradients()
except RuntimeError as error:
    assert "one of 2 processes" in str(error)
else:
    sys.exit("not refused")
network, optimizer, scheduler = accelerator.prepare(network, fused, fused.as_scheduler())
rates = []
for step in range(plain.STEPS):
    batch = [each.chunk(2)[accelerator.process_index] for each in plain.batches()[step % plain.BATCHES]]
    optimizer.zero_grad()
    accelerator.backward(plain.loss_of(network, batch))
    optimizer.step()
    rates += scheduler.get_last_lr()
    scheduler.step()
assert rates == plain.RATES[:-1], "Accelerate steps a scheduler once a process, which must not matter"
torch.save(network.module.state_dict(), f"{sys.argv[1]}/{accelerator.process_index}.pt")
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """A halved batch in each: the same weights in both, and those of one process up to the order of the sum."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for (name, p), q in zip(first.items(), plain.trained().parameters(), strict=True):
        assert torch.equal(p, second[name]), name
        torch.testing.assert_close(p, q.detach(), rtol=1e-4, atol=1e-5)
