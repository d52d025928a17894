"""fastai's Learner."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fastai.callback.schedule", reason="needs fastai")  # gives Learner fit_one_cycle()

from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Recorder
from fastai.optimizer import OptimWrapper

import plain_loop as plain
from clr_native import FusedCyclicSGD

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of fastai, about itself


class Rates(Callback):
    """Notes the rate of each update, behind it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def after_step(self) -> None:
        self.seen += self.learn.opt.opt.last_lr


def learner(opt: Any, folder: Path, **settings: Any) -> Any:
    loaders = DataLoaders(plain.loader(), plain.loader())
    opt_func = partial(OptimWrapper, opt=opt)
    arguments = {"loss_func": torch.nn.functional.mse_loss, "train_bn": False, "path": folder} | settings
    made = Learner(loaders, plain.model(), opt_func=opt_func, **arguments)
    made.remove_cbs(
        [each for each in made.cbs if type(each).__name__ in ("ProgressCallback", "Recorder", "CastToTensor")]
    )
    return made


# fit() writes the Learner's lr into the groups once: it must be the schedule's first, or the first update is by hand.
FIRST = {"lr": plain.RATES[0]}
OURS = partial(FusedCyclicSGD, schedule=plain.SCHEDULE, weight_decay=1e-2)


def test_weights_and_rates_are_the_plain_loops(tmp_path: Path) -> None:
    rates = Rates()
    made = learner(OURS, tmp_path, cbs=[rates], **FIRST)
    made.fit(plain.EPOCHS)
    plain.assert_same(made.model, plain.trained())
    assert rates.seen == plain.RATES[:-1]


def test_a_run_resumed_in_mid_cycle_is_the_unbroken_one(tmp_path: Path) -> None:
    first = learner(OURS, tmp_path, **FIRST)
    first.fit(1)
    first.save("first")
    resumed = learner(OURS, tmp_path, lr=plain.RATES[plain.BATCHES])
    resumed.create_opt()
    resumed.load("first")
    resumed.fit(plain.EPOCHS - 1)
    plain.assert_same(resumed.model, plain.trained())


def test_a_rate_by_itself_is_driven_by_one_cycle(tmp_path: Path) -> None:
    """fit_one_cycle() writes lr and momentum before every update."""
    ours, theirs = (learner(opt, tmp_path) for opt in (FusedCyclicSGD, partial(torch.optim.SGD, momentum=0.9)))
    for each in (ours, theirs):
        each.fit_one_cycle(plain.EPOCHS, 0.1)
    plain.assert_same(ours.model, theirs.model)
    assert ours.opt.opt.applied_steps == plain.STEPS


def test_the_curve_of_lr_find_over_a_rate_by_itself_is_that_of_sgd(tmp_path: Path) -> None:
    ours, theirs = (learner(opt, tmp_path) for opt in (FusedCyclicSGD, partial(torch.optim.SGD, momentum=0.9)))
    for each in (ours, theirs):
        each.add_cb(Recorder(train_metrics=False))
        each.lr_find(num_it=20, show_plot=False)
    assert ours.recorder.lrs == theirs.recorder.lrs
    assert ours.recorder.losses == theirs.recorder.losses
