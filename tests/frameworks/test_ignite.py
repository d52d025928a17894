"""pytorch-ignite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ignite")

from ignite.engine import Events, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.handlers.param_scheduler import LRScheduler

import plain_loop as plain

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of ignite, about itself


class Run:
    def __init__(self) -> None:
        self.network = plain.model()
        self.optimizer = plain.optimizer_of(self.network)
        self.handler = LRScheduler(self.optimizer.as_scheduler())
        self.trainer = create_supervised_trainer(self.network, self.optimizer, torch.nn.functional.mse_loss)
        self.trainer.add_event_handler(Events.ITERATION_STARTED, self.handler)
        self.rates: list[Any] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.rates.extend(self.optimizer.last_lr))

    def objects(self) -> dict[str, Any]:
        names = ("network", "optimizer", "handler", "trainer")
        return {name: getattr(self, name) for name in names}


def test_weights_and_logs_are_the_plain_loops() -> None:
    run = Run()
    run.trainer.run(plain.loader(), max_epochs=plain.EPOCHS)
    plain.assert_same(run.network, plain.trained())
    assert run.rates == plain.RATES[:-1]


def test_a_run_resumed_in_mid_cycle_is_the_unbroken_one(tmp_path: Path) -> None:
    run = Run()
    saver = Checkpoint(run.objects(), DiskSaver(str(tmp_path), require_empty=False))
    run.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), saver)
    run.trainer.run(plain.loader(), max_epochs=1)
    resumed = Run()
    Checkpoint.load_objects(resumed.objects(), torch.load(tmp_path / saver.last_checkpoint))
    resumed.trainer.run(plain.loader(), max_epochs=plain.EPOCHS)
    plain.assert_same(resumed.network, plain.trained())
    assert resumed.rates == plain.RATES[plain.BATCHES : -1]


def test_simulated_values_are_flat() -> None:
    """simulate_values() steps a copy of the scheduler alone; the rates move with the optimizer's updates only."""
    run = Run()
    values = LRScheduler.simulate_values(5, run.optimizer.as_scheduler())
    assert [lr for _, lr in values] == [plain.RATES[0]] * 5
