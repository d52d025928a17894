"""Lightning: FusedCyclicSGD where SGD stood, with and without its scheduler in Lightning's slot."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

import lightning
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

import plain_loop as plain
from clr_native import FusedCyclicSGD

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Lightning, about loaders and hardware


class Module(lightning.LightningModule):
    """``slot``: the optimizer's scheduler is returned too. ``rates``: those of each update, read behind it."""

    def __init__(self, slot: bool = True, **settings: Any) -> None:
        super().__init__()
        self.network, self.slot, self.settings = plain.model(), slot, settings
        self.rates: list[Any] = []

    def configure_optimizers(self) -> Any:
        self.fused = plain.optimizer_of(self.network, **self.settings)
        if not self.slot:
            return self.fused
        return {"optimizer": self.fused, "lr_scheduler": {"scheduler": self.fused.as_scheduler(), "interval": "step"}}

    def training_step(self, batch: Any, _: int) -> Any:
        return plain.loss_of(self.network, batch)

    def on_train_batch_end(self, *_: Any) -> None:
        self.rates.append(self.fused.last_lr[0])


def trainer(folder: Path, **settings: Any) -> lightning.Trainer:
    settings = {"logger": False, "enable_checkpointing": False, "max_epochs": plain.EPOCHS} | settings
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


@pytest.mark.parametrize("slot", [False, True])
def test_weights_and_logs_are_the_plain_loops(slot: bool, tmp_path: Path) -> None:
    module = Module(slot)
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    monitor = [LearningRateMonitor("step", log_momentum=True)] if slot else []
    trainer(tmp_path, logger=logger, callbacks=monitor, log_every_n_steps=1).fit(module, plain.loader())
    plain.assert_same(module.network, plain.trained())
    assert module.rates == plain.RATES[:-1]
    if slot:
        rows = [line.split(",") for line in Path(logger.log_dir, "metrics.csv").read_text().splitlines()]
        columns = {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}
        (name,) = (name for name in columns if name.startswith("lr-") and not name.endswith("momentum"))
        assert [float(lr) for lr in columns[name]] == plain.RATES[:-1]
        assert [float(m) for m in columns[f"{name}-momentum"]] == plain.MOMENTA[:-1]


@pytest.mark.parametrize("slot", [False, True])
def test_a_run_resumed_in_mid_cycle_is_the_unbroken_one(slot: bool, tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, filename="first", every_n_epochs=1, save_top_k=-1)
    first = Module(slot)
    trainer(tmp_path, max_epochs=1, enable_checkpointing=True, callbacks=[saver]).fit(first, plain.loader())
    second = Module(slot)
    trainer(tmp_path).fit(second, plain.loader(), ckpt_path=tmp_path / "first.ckpt", weights_only=False)
    plain.assert_same(second.network, plain.trained())
    assert second.rates == plain.RATES[plain.BATCHES : -1]


@pytest.mark.parametrize("ours", [False, True])
def test_clipping_by_lightning_and_by_us(ours: bool, tmp_path: Path) -> None:
    module = Module(max_grad_norm=0.5 if ours else None)
    trainer(tmp_path, gradient_clip_val=None if ours else 0.5).fit(module, plain.loader())
    network = plain.model()
    optimizer = plain.optimizer_of(network)
    for step in range(plain.STEPS):
        optimizer.zero_grad()
        plain.loss_of(network, plain.batches()[step % plain.BATCHES]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
    for p, q in zip(module.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5 if ours else 0, atol=1e-6 if ours else 0)


def test_accumulation_updates_once_for_several_batches(tmp_path: Path) -> None:
    module = Module()
    trainer(tmp_path, accumulate_grad_batches=4).fit(module, plain.loader())
    network = plain.model()
    plain.train(network, plain.optimizer_of(network), range(plain.STEPS // 4), accumulate=4)
    plain.assert_same(module.network, network)
    assert module.fused.applied_steps == plain.STEPS // 4


@pytest.mark.parametrize("slot", [False, True])
@pytest.mark.parametrize("flag", [False, True])
def test_a_scaler_of_16_bits_skips_what_overflows(flag: bool, slot: bool, tmp_path: Path) -> None:
    """The first scale overflows. Without the flag Lightning may clip; with it, it refuses to."""
    module = Module(slot, grad_scale_in_step=flag)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000)
    fit = trainer(tmp_path, gradient_clip_val=1e9, plugins=[MixedPrecision("16-mixed", "cpu", scaler)]).fit
    if flag:
        with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
            fit(module, plain.loader())
        return
    fit(module, plain.loader())
    network = plain.model()
    optimizer, scaler = (
        plain.optimizer_of(network),
        torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000),
    )
    for step in range(plain.STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = plain.loss_of(network, plain.batches()[step % plain.BATCHES])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    plain.assert_same(module.network, network)
    assert module.fused.applied_steps == optimizer.applied_steps < plain.STEPS
    assert (module.fused.skipped_steps, module.fused.last_step_skipped) == (0, False)


def test_bfloat16_is_the_plain_loop_under_autocast(tmp_path: Path) -> None:
    module = Module()
    trainer(tmp_path, precision="bf16-mixed").fit(module, plain.loader())
    network = plain.model()
    optimizer = plain.optimizer_of(network)
    for step in range(plain.STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = plain.loss_of(network, plain.batches()[step % plain.BATCHES])
        loss.backward()
        optimizer.step()
    plain.assert_same(module.network, network)


class ByHand(Module):
    """Manual optimization: ``self.optimizers()`` is Lightning's wrapper."""

    def __init__(self) -> None:
        super().__init__(False)
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        wrapper: Any = self.optimizers()
        assert type(wrapper) is not FusedCyclicSGD
        if index == 0:
            wrapper.max_grad_norm = 0.5
        if index == 5:
            wrapper.load_state_dict(wrapper.state_dict())
            wrapper.seek(2)
        wrapper.zero_grad()
        self.manual_backward(plain.loss_of(self.network, batch))
        wrapper.step()


def test_what_is_done_to_lightnings_wrapper_is_done_to_the_optimizer(tmp_path: Path) -> None:
    module = ByHand()
    trainer(tmp_path, max_epochs=1).fit(module, plain.loader())
    network = plain.model()
    optimizer = plain.optimizer_of(network, max_grad_norm=0.5)
    plain.train(network, optimizer, range(5))
    optimizer.seek(2)
    plain.train(network, optimizer, range(5, plain.BATCHES))
    plain.assert_same(module.network, network)
    assert module.fused.applied_steps == optimizer.applied_steps
    assert module.fused.max_grad_norm == 0.5


def test_a_scheduler_of_lightnings_own_is_warned_of(tmp_path: Path) -> None:
    class Driven(Module):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()["optimizer"]
            driver = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (1 + n))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": driver, "interval": "step"}}

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, max_epochs=1).fit(Driven(), plain.loader())
    assert sum("as_scheduler()" in str(warning.message) for warning in caught) == 1
