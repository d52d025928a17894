"""What may be combined with what: legal combinations train and keep the dtypes they say, others are refused by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from half_helpers import COMBINATIONS, LEGAL, WAYS, buffer_dtype, ids_of, name_of
from helpers import assert_refused, assert_setting_refused, go_on, parameters, raised

DTYPES = tuple(LEGAL)
LOSSLESS = ("rounding", "kahan", "master_weights")  # at most one of these
PLAIN: dict[str, Any] = {"momentum_dtype": None, "rounding": "nearest", "kahan": False, "master_weights": False}


def ours(over: Any, **options: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.1, 0.5, step_size_up=3, **options)


def every_setting() -> list[tuple[torch.dtype, dict[str, Any]]]:
    """All combinations, for each dtype of a parameter."""
    found = []
    for dtype, momentum, rounding, kahan, master in itertools.product(
        DTYPES, (None, *DTYPES), ("nearest", "stochastic"), (False, True), (False, True)
    ):
        settings = {"momentum_dtype": name_of(momentum), "rounding": rounding, "kahan": kahan, "master_weights": master}
        found.append((dtype, settings))
    return found


def asked_for(settings: dict[str, Any]) -> list[str]:
    return [name for name in LOSSLESS if settings[name] != PLAIN[name]]


def is_legal(dtype: torch.dtype, settings: dict[str, Any]) -> bool:
    momentum_dtypes, ways = LEGAL[dtype]
    named = {key: value for key, value in settings.items() if key in asked_for(settings)}
    kept = any({**WAYS[way], "seed": 0} == {**named, "seed": 0} for way in ways)
    return kept and settings["momentum_dtype"] in map(name_of, momentum_dtypes)


ILLEGAL = [(dtype, settings) for dtype, settings in every_setting() if not is_legal(dtype, settings)]


def named_in(message: str, dtype: torch.dtype, settings: dict[str, Any]) -> bool:
    """Does a message say, as name=value, what of the settings is to be left out?"""
    asked = asked_for(settings)
    if len(asked) > 1:
        return all(f"{name}={settings[name]!r}" in message for name in asked)
    if asked and dtype not in (torch.bfloat16, torch.float16):
        pairs = [(name, settings[name]) for name in (*asked, "momentum_dtype")]
        return f"dtype={dtype}" in message and any(f"{name}={value!r}" in message for name, value in pairs)
    return f"dtype={dtype}" in message and f"momentum_dtype={settings['momentum_dtype']!r}" in message


def test_the_two_tables_have_the_same_legal_combinations() -> None:
    assert len(every_setting()) == len(ILLEGAL) + len(COMBINATIONS)


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize(("dtype", "momentum_dtype", "way"), COMBINATIONS, ids=ids_of)
def test_a_legal_combination_trains(
    dtype: torch.dtype, momentum_dtype: torch.dtype | None, way: str, as_text: bool
) -> None:
    over = parameters([9, (3, 4)], dtype)
    given = name_of(momentum_dtype) if as_text else momentum_dtype
    optimizer = ours(over, momentum_dtype=given, ema_decay=0.5, **WAYS[way])
    assert optimizer.param_groups[0]["momentum_dtype"] == name_of(momentum_dtype)
    before = [p.detach().clone() for p in over]
    go_on(optimizer, 3)
    expected = {"momentum_buffer": buffer_dtype(dtype, momentum_dtype, way)}
    expected |= {"average": torch.float32 if way == "master" else dtype}
    expected |= {"compensation": dtype} if way == "kahan" else {}
    expected |= {"master_weight": torch.float32} if way == "master" else {}
    for p, old in zip(over, before, strict=True):
        assert not torch.equal(p, old)
        assert {name: value.dtype for name, value in optimizer.state[p].items()} == expected
        assert all(value.shape == p.shape for value in optimizer.state[p].values())


Settings = dict[str, Any]


def to_construct(dtype: torch.dtype, settings: Settings) -> tuple[FusedCyclicSGD, Callable[[], object]]:
    groups: list[Settings] = [{"params": parameters([5])}, {"params": parameters([3], dtype), **settings}]
    return ours(parameters([3])), lambda: ours(groups)


def to_add_a_group(dtype: torch.dtype, settings: Settings) -> tuple[FusedCyclicSGD, Callable[[], object]]:
    optimizer = ours(parameters([3]))
    return optimizer, lambda: optimizer.add_param_group({"params": parameters([3], dtype), **settings})


def of_two_groups(dtype: torch.dtype) -> FusedCyclicSGD:
    optimizer = ours([{"params": parameters([5])}, {"params": parameters([3], dtype)}])
    go_on(optimizer, 2)
    return optimizer


def to_step(dtype: torch.dtype, settings: Settings) -> tuple[FusedCyclicSGD, Callable[[], object]]:
    """In the second group, behind one that could be updated."""
    optimizer = of_two_groups(dtype)
    optimizer.param_groups[1].update(settings)
    return optimizer, optimizer.step


def to_load(dtype: torch.dtype, settings: Settings) -> tuple[FusedCyclicSGD, Callable[[], object]]:
    """A checkpoint of the same settings over another dtype."""
    optimizer = of_two_groups(dtype)
    checkpoint = optimizer.state_dict()
    checkpoint["param_groups"][1].update(settings)
    return optimizer, lambda: optimizer.load_state_dict(checkpoint)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids_of)
@pytest.mark.parametrize("way", [to_construct, to_add_a_group, to_step, to_load])
def test_an_illegal_combination_is_refused_and_leaves_the_optimizer_as_it_was(
    way: Callable[[torch.dtype, Settings], tuple[FusedCyclicSGD, Callable[[], object]]], dtype: torch.dtype
) -> None:
    for each, settings in ILLEGAL:
        if each is not dtype:
            continue
        optimizer, act = way(dtype, settings)
        assert_refused(act, ValueError, "group 1", optimizer)
        assert named_in(str(raised(act)), dtype, settings), settings
        if way is to_step:
            optimizer.param_groups[1].update(PLAIN)
        go_on(optimizer)


def meta(dtype: torch.dtype) -> Tensor:
    return torch.zeros(3, dtype=dtype, device="meta", requires_grad=True)


def lazy(dtype: torch.dtype) -> Tensor:
    return torch.nn.UninitializedParameter(dtype=dtype)  # type: ignore[call-arg]  # torch's stub has none


@pytest.mark.parametrize("make", [meta, lazy])
def test_parameters_that_cannot_be_read_are_judged_by_their_dtype(make: Any) -> None:
    for dtype, momentum_dtype, way in COMBINATIONS:
        ours([make(dtype)], momentum_dtype=momentum_dtype, **WAYS[way])
    for dtype, settings in ILLEGAL:
        with pytest.raises(ValueError, match="group 0"):
            ours([make(dtype)], **settings)


@pytest.mark.parametrize("value", ["float8", "torch.float32", 32, torch.int8, "", True])
def test_a_momentum_dtype_that_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"group 0: momentum_dtype=.* must be None, 'float32'"):
        ours(parameters([3]), momentum_dtype=value)


def in_a_group(over: list[Tensor], **settings: Any) -> FusedCyclicSGD:
    return ours([{"params": over, **settings}])


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("rounding", "up", ValueError),
        ("rounding", None, ValueError),
        ("seed", -1, ValueError),
        ("seed", 2**64, ValueError),
        ("seed", 0.5, ValueError),
        ("kahan", 1, TypeError),
        ("master_weights", None, TypeError),
        ("n_updates", -1, ValueError),
    ],
)
def test_a_setting_out_of_its_range(name: str, value: Any, error: type[Exception]) -> None:
    over, message = parameters([3], torch.bfloat16), f"group 0: {name}={value!r} must be"
    assert_setting_refused(in_a_group, over, {name: value}, error, message)


def test_a_group_of_its_own_for_parameters_that_are_not_of_16_bits() -> None:
    """What the message advises: norms in float32 beside weights in bfloat16."""
    over = [*parameters([5], torch.bfloat16), *parameters([5])]
    with pytest.raises(ValueError, match=r"parameter 1 of group 0: master_weights=True .* dtype=torch.float32"):
        ours(over, master_weights=True)
    optimizer = ours([{"params": over[:1]}, {"params": over[1:], "master_weights": False}], master_weights=True)
    go_on(optimizer, 2)
    assert "master_weight" in optimizer.state[over[0]]
    assert "master_weight" not in optimizer.state[over[1]]
