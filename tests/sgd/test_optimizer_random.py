"""Random lives of an optimizer beside torch's SGD: what is cached between steps must never be stale."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence, ScheduleValue
from clr_native.schedules import Schedule
from helpers import assert_same_training, every_parameter, parameters, picture, raised

SHAPES: list[tuple[int, ...]] = [(5,), (4, 3), (3, 2, 2, 2), (), (17,), (0,)]
RAMP = RampSchedule(0.01, 0.1, 3)
SCHEDULES: list[Schedule] = [
    CyclicSchedule(0.01, 0.1, step_size_up=2, base_momentum=0.5),
    CyclicSchedule(0.0, 0.2, step_size_up=1, step_size_down=4, mode="triangular2", base_momentum=0.25),
    CyclicSchedule(0.05, 0.05, window="hann", base_momentum=0.7, max_momentum=0.8),
    RAMP,
    OneCycleSchedule(0.1, 100, three_phase=True),
    # Momentum comes and goes.
    ScheduleSequence([(RAMP, 1), (OneCycleSchedule(0.1, 7), 3), (RAMP, 2)] * 9),
]
# Objects that come back, as constants of a training script do.
SETTINGS: dict[str, list[Any]] = {"weight_decay": [0.0, 0.01, 0.1], "dampening": [0.0, 0.25], "maximize": [False, True]}


class Life:
    """Ours and torch's SGD over copies of the same parameters, and what ours must say of its groups."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.ours = FusedCyclicSGD([{"params": self.new_parameters(), "schedule": SCHEDULES[0]}])
        self.theirs = SGD([{"params": self.twins(0)}], lr=0.1, momentum=0.9, foreach=False)
        self.schedules, self.positions = [SCHEDULES[0]], [0]
        self.replaced: set[int] = set()  # groups with a schedule that no step has seen

    def new_parameters(self) -> list[Tensor]:
        shapes = self.random.choices(SHAPES, k=self.random.randint(1, 3))
        return parameters(shapes, self.random.choice([torch.float32, torch.float64]))

    def twins(self, group: int) -> list[Tensor]:
        return [p.detach().clone().requires_grad_() for p in self.ours.param_groups[group]["params"]]

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(every_parameter(self.ours), every_parameter(self.theirs), strict=True))

    def a_group(self) -> int:
        return self.random.randrange(len(self.positions))

    def scheduled(self, group: int) -> ScheduleValue:
        return self.schedules[group](self.positions[group])

    def is_by_hand(self, index: int) -> bool:
        group, (lr, momentum) = self.ours.param_groups[index], self.scheduled(index)
        return bool(group["lr"] != lr or (momentum is not None and group["momentum"] != momentum))

    # What happens between steps, the same to both.

    def gradients(self) -> None:
        for own, twin in self.pairs():
            kind = self.random.choice(["new", "new", "none", "keep", "in place", "turned"])
            gradient: Tensor | None = torch.randn(own.shape, generator=self.generator, dtype=torch.float64)
            gradient = gradient.to(own.dtype)  # type: ignore[union-attr]  # is not None here
            if kind == "turned":
                gradient = gradient.t().contiguous().t() if own.dim() == 2 else gradient
            if kind == "in place" and own.grad is not None and twin.grad is not None:
                own.grad.copy_(gradient)
                twin.grad.copy_(gradient)
            elif kind != "keep":
                own.grad = None if kind == "none" else gradient
                twin.grad = None if kind == "none" else gradient.clone()

    def lr_by_hand(self) -> None:
        group = self.a_group()
        self.ours.param_groups[group]["lr"] = self.random.choice([0.0, 0.3, torch.tensor(0.25)])

    def momentum_by_hand(self) -> None:
        group = self.a_group()
        self.ours.param_groups[group]["momentum"] = self.random.choice([0.33, 0.66])

    def replace_schedule(self) -> None:
        group = self.a_group()
        self.schedules[group] = self.random.choice([each for each in SCHEDULES if each != self.schedules[group]])
        self.ours.param_groups[group]["schedule"] = self.schedules[group]
        self.replaced.add(group)

    def setting(self) -> None:
        group, name = self.a_group(), self.random.choice(list(SETTINGS))
        for optimizer in (self.ours, self.theirs):
            optimizer.param_groups[group][name] = SETTINGS[name][self.random.randrange(2)]
        self.theirs.param_groups[group][name] = self.ours.param_groups[group][name]

    def seek(self) -> None:
        step = self.random.randrange(20)
        self.ours.seek(step)
        self.positions = [step] * len(self.positions)
        self.replaced.clear()

    def add_group(self) -> None:
        if len(self.positions) == 4:
            return
        schedule = self.random.choice(SCHEDULES)
        self.ours.add_param_group({"params": self.new_parameters(), "schedule": schedule})
        self.theirs.add_param_group({"params": self.twins(-1)})
        self.schedules.append(schedule)
        self.positions.append(self.positions[0])

    def remove_group(self) -> None:
        if len(self.positions) == 1:
            return
        group = self.a_group()
        for optimizer in (self.ours, self.theirs):
            for parameter in optimizer.param_groups[group]["params"]:
                optimizer.state.pop(parameter, None)  # or torch's state_dict() raises KeyError
        for listed in (self.ours.param_groups, self.theirs.param_groups, self.schedules, self.positions):
            del listed[group]
        self.replaced = {g - (g > group) for g in self.replaced if g != group}

    def zero_grad(self) -> None:
        to_none = self.random.choice([False, True])
        self.ours.zero_grad(set_to_none=to_none)
        self.theirs.zero_grad(set_to_none=to_none)

    def move_memory(self) -> None:
        own, _ = self.random.choice(self.pairs())
        own.data = own.detach().clone()

    def turn(self) -> None:
        for own, twin in self.pairs():
            for tensor in (own, twin):
                if tensor.dim() == 4:
                    tensor.data = tensor.detach().contiguous(memory_format=torch.channels_last)

    def drop_state(self) -> None:
        for own, twin in self.random.sample(self.pairs(), 1):
            kind = self.random.choice(["entry", "buffer", "none", "all"])
            for optimizer, parameter in ((self.ours, own), (self.theirs, twin)):
                if kind == "all":
                    optimizer.state.clear()
                elif kind == "entry":
                    optimizer.state.pop(parameter, None)
                elif parameter in optimizer.state:
                    entry = optimizer.state[parameter]
                    entry.pop("momentum_buffer", None) if kind == "buffer" else entry.update(momentum_buffer=None)

    def replace_buffer(self) -> None:
        for own, twin in self.random.sample(self.pairs(), 1):
            buffer = torch.randn(own.shape, generator=self.generator, dtype=torch.float64).to(own.dtype)
            self.ours.state[own]["momentum_buffer"] = buffer
            self.theirs.state[twin]["momentum_buffer"] = buffer.clone()

    def save_and_load(self) -> None:
        self.ours.load_state_dict(copy.deepcopy(self.ours.state_dict()))
        self.replaced.clear()

    def become_a_copy(self) -> None:
        gradients = [p.grad for p in every_parameter(self.ours)]
        self.ours = copy.deepcopy(self.ours)
        self.replaced.clear()
        for parameter, gradient in zip(every_parameter(self.ours), gradients, strict=True):
            parameter.grad = gradient

    def refused_step(self) -> None:
        if self.replaced:
            return  # the new schedule's values are written before anything is refused
        own, _ = self.random.choice(self.pairs())
        gradient, own.grad = own.grad, torch._neg_view(torch.ones_like(own.detach()))
        settings = {name: self.ours.param_groups[0][name] for name in SETTINGS}
        self.ours.param_groups[0].update({name: values[1] for name, values in SETTINGS.items()})
        before = picture(self.ours)
        assert isinstance(raised(self.ours.step), TypeError)
        assert picture(self.ours) == before
        self.ours.param_groups[0].update(settings)
        own.grad = gradient

    # The step.

    def step(self) -> None:
        for i, (own, group) in enumerate(zip(self.ours.param_groups, self.theirs.param_groups, strict=True)):
            group["lr"], group["momentum"] = float(own["lr"]), own["momentum"]
            if i in self.replaced:  # a new schedule puts its own in their place
                lr, momentum = self.scheduled(i)
                group["lr"], group["momentum"] = lr, own["momentum"] if momentum is None else momentum
        by_hand = [i not in self.replaced and self.is_by_hand(i) for i in range(len(self.positions))]
        self.replaced.clear()
        self.ours.step()
        self.theirs.step()
        assert_same_training(self.ours, self.theirs)
        for i, (group, other) in enumerate(zip(self.ours.param_groups, self.theirs.param_groups, strict=True)):
            self.positions[i] += not by_hand[i]
            lr, momentum = self.scheduled(i)
            found = group["applied_steps"], group["lr"], group["momentum"]
            assert found == (self.positions[i], lr, other["momentum"] if momentum is None else momentum)


EVENTS: list[Callable[[Life], None]] = [
    Life.lr_by_hand,
    Life.momentum_by_hand,
    Life.replace_schedule,
    Life.setting,
    Life.seek,
    Life.add_group,
    Life.remove_group,
    Life.zero_grad,
    Life.move_memory,
    Life.turn,
    Life.drop_state,
    Life.replace_buffer,
    Life.save_and_load,
    Life.become_a_copy,
    Life.refused_step,
]


@pytest.mark.filterwarnings("ignore:3 steps in a row found no gradient")
@pytest.mark.parametrize("seed", range(100))
def test_random_life(seed: int) -> None:
    """On failure the events are printed: the last ones tell which."""
    life = Life(seed)
    for _ in range(40):
        life.gradients()
        for event in life.random.sample(EVENTS, life.random.choice([0, 0, 1, 1, 2, 3])):
            print(event.__name__)
            event(life)
        print("step")
        life.step()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_one_kind_of_event(seed: int, event: Callable[[Life], None]) -> None:
    life = Life(seed)
    life.add_group()
    for step in range(12):
        life.gradients()
        if step % 3 != 1:
            event(life)
        life.step()
