"""timm: its registry, layer decay, schedulers and Lookahead."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("timm")

from timm.optim import Lookahead, create_optimizer_v2
from timm.optim._optim_factory import OptimInfo, default_registry
from timm.scheduler import CosineLRScheduler

import plain_loop as plain
from clr_native import FusedCyclicSGD

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of timm, about itself


class Layered(torch.nn.Module):
    """A network whose layers timm can tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain.model()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^body\.0", "blocks": [(r"^body\.2", None)]}

    def no_weight_decay(self) -> set[str]:
        return set()

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.body(inputs)


def made(network: torch.nn.Module, optimizer: type, **settings: Any) -> Any:
    """As timm's train.py makes an optimizer: it always passes a rate."""
    name = f"tried{optimizer.__name__.lower()}"
    default_registry.register(OptimInfo(name=name, opt_class=optimizer, has_momentum=True, has_betas=False))
    return create_optimizer_v2(network, opt=name, lr=0.05, weight_decay=1e-2, layer_decay=0.5, **settings)


def test_bounds_win_over_the_rate_that_timm_passes_and_layers_decay() -> None:
    network = Layered()
    optimizer = made(network, FusedCyclicSGD, schedule=plain.SCHEDULE, momentum=None)
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert set(scales) == {0.5, 1.0} or len(set(scales)) > 1
    other = Layered()
    groups = [
        {"params": [dict(other.named_parameters())[name] for name in group["param_names"]]}
        | {name: group[name] for name in ("lr_scale", "weight_decay")}
        for group in _named(optimizer, network)
    ]
    by_hand = torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    for step in range(plain.STEPS):
        lr, momentum = plain.SCHEDULE(step)
        assert optimizer.get_last_lr() == [scale * lr for scale in scales]
        for group in by_hand.param_groups:
            group.update(lr=group["lr_scale"] * lr, momentum=momentum)
        for model, each in ((network, optimizer), (other, by_hand)):
            each.zero_grad()
            plain.loss_of(model, plain.batches()[step % plain.BATCHES]).backward()
            each.step()
    plain.assert_same(network, other)


def _named(optimizer: Any, network: torch.nn.Module) -> list[dict[str, Any]]:
    names = {id(p): name for name, p in network.named_parameters()}
    return [{**group, "param_names": [names[id(p)] for p in group["params"]]} for group in optimizer.param_groups]


def test_a_rate_by_itself_is_driven_by_timms_schedulers() -> None:
    """With layer decay, which timm's schedulers apply themselves."""
    networks = [Layered(), Layered()]
    pairs = []
    for network, kind in zip(networks, (FusedCyclicSGD, torch.optim.SGD), strict=True):
        optimizer = made(network, kind, momentum=0.9)
        scheduler = CosineLRScheduler(
            optimizer, t_initial=plain.STEPS, warmup_t=5, warmup_lr_init=1e-3, t_in_epochs=False
        )
        pairs.append((network, optimizer, scheduler))
    for step in range(plain.STEPS):
        for network, optimizer, scheduler in pairs:
            optimizer.zero_grad()
            plain.loss_of(network, plain.batches()[step % plain.BATCHES]).backward()
            optimizer.step()
            scheduler.step_update(step + 1)
    plain.assert_same(*networks)
    assert pairs[0][1].applied_steps == plain.STEPS


def test_lookahead_keeps_the_schedule_and_its_state() -> None:
    """Its slow weights are a pass of its own; the optimizer is ``lookahead._base_optimizer``."""
    networks = [plain.model(), plain.model()]
    ours = plain.optimizer_of(networks[0])
    by_hand = torch.optim.SGD(networks[1].parameters(), lr=0.0, momentum=0.9, weight_decay=1e-2)
    both = [Lookahead(each, alpha=0.5, k=6) for each in (ours, by_hand)]
    for step in range(plain.STEPS):
        lr, momentum = plain.SCHEDULE(step)
        by_hand.param_groups[0].update(lr=lr, momentum=momentum)
        for network, optimizer in zip(networks, both, strict=True):
            plain.train(network, optimizer, range(step, step + 1))
        if step == 25:
            saved = both[0].state_dict()
            both[0].load_state_dict(saved)
            assert both[0]._base_optimizer is ours
            assert ours.param_groups[0]["lookahead_k"] == 6  # unknown keys stay in groups and in states
    plain.assert_same(*networks)
    assert ours.applied_steps == plain.STEPS
