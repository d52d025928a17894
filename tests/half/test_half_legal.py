"""What may be combined with what: legal combinations train and keep the dtypes they say, others are refused by name."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from half_helpers import COMBINATIONS, LEGAL, WAYS, buffer_dtype, ids_of, name_of
from helpers import every_parameter, give, gradient_sets, parameters, picture, train

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
    optimizer = ours(over, momentum_dtype=name_of(momentum_dtype) if as_text else momentum_dtype, **WAYS[way])
    assert optimizer.param_groups[0]["momentum_dtype"] == name_of(momentum_dtype)
    before = [p.detach().clone() for p in over]
    train(optimizer, over, gradient_sets(over), 3)
    expected = {"momentum_buffer": buffer_dtype(dtype, momentum_dtype, way)}
    expected |= {"compensation": dtype} if way == "kahan" else {}
    expected |= {"master_weight": torch.float32} if way == "master" else {}
    for p, old in zip(over, before, strict=True):
        assert not torch.equal(p, old)
        assert {name: value.dtype for name, value in optimizer.state[p].items()} == expected
        assert all(value.shape == p.shape for value in optimizer.state[p].values())


@pytest.mark.parametrize("dtype", DTYPES, ids=ids_of)
def test_an_illegal_combination_is_refused_at_construction(dtype: torch.dtype) -> None:
    for each, settings in ILLEGAL:
        if each is not dtype:
            continue
        with pytest.raises(ValueError, match="group 0") as caught:
            ours(parameters([3], dtype), **settings)
        assert named_in(str(caught.value), dtype, settings), (settings, str(caught.value))


@pytest.mark.parametrize("dtype", DTYPES, ids=ids_of)
def test_an_illegal_combination_is_refused_in_a_new_group(dtype: torch.dtype) -> None:
    """And leaves the optimizer as it was."""
    optimizer = ours(parameters([3]))
    before = picture(optimizer)
    for each, settings in ILLEGAL:
        if each is not dtype:
            continue
        with pytest.raises(ValueError, match="group 1") as caught:
            optimizer.add_param_group({"params": parameters([3], dtype), **settings})
        assert named_in(str(caught.value), dtype, settings), (settings, str(caught.value))
        assert picture(optimizer) == before
    optimizer.add_param_group({"params": parameters([3], dtype)})


@pytest.mark.parametrize("dtype", DTYPES, ids=ids_of)
def test_an_illegal_combination_set_later_is_refused_at_the_step(dtype: torch.dtype) -> None:
    """In the second group, behind one that could be updated."""
    over = [*parameters([5]), *parameters([3], dtype)]
    optimizer = ours([{"params": over[:1]}, {"params": over[1:]}])
    train(optimizer, over, gradient_sets(over), 2)
    group = optimizer.param_groups[1]
    for each, settings in ILLEGAL:
        if each is not dtype:
            continue
        group.update(settings)
        before = picture(optimizer)
        with pytest.raises(ValueError, match="group 1") as caught:
            optimizer.step()
        assert named_in(str(caught.value), dtype, settings), (settings, str(caught.value))
        assert picture(optimizer) == before
    group.update(PLAIN)
    optimizer.step()
    assert optimizer.applied_steps == 3


@pytest.mark.parametrize("dtype", DTYPES, ids=ids_of)
def test_a_checkpoint_whose_settings_do_not_fit_the_parameters_is_refused(dtype: torch.dtype) -> None:
    """One of the same settings over another dtype: refused at loading, and nothing has changed."""
    for each, settings in ILLEGAL:
        if each is not dtype or len(asked_for(settings)) > 1:
            continue
        optimizer = ours(parameters([3], dtype))
        train(optimizer, every_parameter(optimizer), gradient_sets(every_parameter(optimizer)), 2)
        checkpoint = optimizer.state_dict()
        checkpoint["param_groups"][0].update(settings)
        before = picture(optimizer)
        with pytest.raises(ValueError, match="group 0") as caught:
            optimizer.load_state_dict(checkpoint)
        assert named_in(str(caught.value), dtype, settings), (settings, str(caught.value))
        assert picture(optimizer) == before


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
    message = f"group 0: {name}={value!r} must be"
    with pytest.raises(error, match=message):
        ours([{"params": parameters([3], torch.bfloat16), name: value}])
    over = parameters([3], torch.bfloat16)
    optimizer = ours(over)
    give(over, [torch.ones_like(p) for p in over])
    optimizer.param_groups[0][name] = value
    before = picture(optimizer)
    with pytest.raises(error, match=message):
        optimizer.step()
    assert picture(optimizer) == before


def test_a_group_of_its_own_for_parameters_that_are_not_of_16_bits() -> None:
    """What the message advises: norms in float32 beside weights in bfloat16."""
    over = [*parameters([5], torch.bfloat16), *parameters([5])]
    with pytest.raises(ValueError, match=r"parameter 1 of group 0: master_weights=True .* dtype=torch.float32"):
        ours(over, master_weights=True)
    optimizer = ours([{"params": over[:1]}, {"params": over[1:], "master_weights": False}], master_weights=True)
    train(optimizer, over, gradient_sets(over), 2)
    assert "master_weight" in optimizer.state[over[0]]
    assert "master_weight" not in optimizer.state[over[1]]
