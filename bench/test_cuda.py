"""The benchmark for GPUs where there is none: its cases, its rows, and that its contenders compute what they should."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import cuda
from bench.harness.contenders import OURS, Contender
from bench.harness.names import OUR_SCALER
from bench.harness.rounds import Spread, Visit
from bench.harness.workloads import WORKLOADS, Gradients, Refilled, Workload
from bench.on_gpu import questions
from bench.on_gpu.questions import LAST, REPLAYED, cases, verify
from bench.on_gpu.rows import Row, Told, header, line, row, words_of
from bench.on_gpu.times import COPIED_BYTES, bandwidth

ASKED = questions.questions()
SMALL = Workload("small", ((40, 30), (65,), (7,), (300, 5)))
CONTENDERS = [(question, name) for question, asked in ASKED.items() for name in asked.contenders]


def stays(gradients: Gradients) -> Gradients:
    return gradients


@pytest.fixture(autouse=True)
def everything_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "on_gpu", stays)
    monkeypatch.setattr(cuda, "on_gpu", stays)


@pytest.mark.parametrize(("question", "name"), CONTENDERS)
def test_contenders_pass_their_own_check(question: str, name: str) -> None:
    if name == "fused" and question.endswith("float16"):
        pytest.skip("torch's fused SGD of the CPU gives wrong numbers in 16 bits: tests/peers has it")
    verify(ASKED[question], name, SMALL, ASKED[question].gradients(SMALL))


@pytest.mark.parametrize("question", ASKED)
def test_the_check_finds_a_wrong_contender(question: str) -> None:
    asked = ASKED[question]
    built = 0

    def build(name: str, tensors: Refilled) -> Contender:
        """The contender is built first, then the reference."""
        nonlocal built
        built += 1
        contender = asked.build(name, tensors)
        for group in contender.optimizer.param_groups:
            group["weight_decay"] = 0.5 * built
        return contender

    with pytest.raises(AssertionError, match="small, "):
        verify(replace(asked, build=build), asked.ours, SMALL, asked.gradients(SMALL))


def test_cases_are_all_asked_and_the_longest_come_last() -> None:
    found = [(question.name, workload.name.lower()) for question, workload in cases([*ASKED], [*WORKLOADS])]
    assert found[0] == ("plain", "mlp")
    assert sorted(found) == sorted((name, work) for name, asked in ASKED.items() for work in asked.workloads)
    assert [work == LAST for _, work in found] == sorted(work == LAST for _, work in found)
    assert [(asked.name, work.name) for asked, work in cases(["lars", "clip"], ["mlp"])] == [("clip", "MLP")]


def test_ours_stands_first_in_every_question() -> None:
    assert {asked.ours for asked in ASKED.values()} == {OURS, REPLAYED, OUR_SCALER}


def test_a_row_has_times_ratios_and_the_share_of_a_copy() -> None:
    samples = {
        **{f"{what}: {OURS}": [2e-3, 2e-3] for what in ("done", "host", "device")},
        **{f"{what}: fused": [3e-3, 3e-3] for what in ("done", "host")},
        "device: fused": [3e-3, math.nan],
    }
    workload = WORKLOADS["gpt-2"]
    copied = 2 * workload.elements * 20 / 2e-3
    own, other, absent = (row(ASKED["plain"], workload, name, samples, copied) for name in (OURS, "fused", "foreach"))
    assert own.of_copy == pytest.approx(0.5)
    assert other.slower["done"].median == pytest.approx(1.5)
    assert (own.slower, other.of_copy, set(other.seconds)) == ({}, None, {"done", "host"})
    assert absent.seconds == {}
    assert row(ASKED["plain"], workload, OURS, samples, math.nan).of_copy is None
    assert row(ASKED["plain"], SMALL, OURS, samples, copied).of_copy is None  # caches may hold it


def test_a_line_fits_the_header() -> None:
    flat = Spread(1.0, 1.0, 1.0)
    told = Row("plain", "small", "fused", {"done": flat}, {"done": Spread(0.5, 0.5, 0.5)}, None, "a reason")
    assert line(told) == "| plain, small | fused | 1.00 s [1.00, 1.00] | - | - | 0.50, fused wins |  |  | a reason |"
    assert header().partition("\n")[0].count("|") == line(told).count("|")


def test_an_error_is_told_in_one_cell() -> None:
    assert words_of(RuntimeError("CUDA | error\nand its trace")) == "RuntimeError: CUDA / error"


def test_copies_that_were_not_timed_are_left_out() -> None:
    assert bandwidth([math.nan, 1.0, 1.0]) == 2 * COPIED_BYTES
    assert math.isnan(bandwidth([math.nan]))


def times_of(contender: Contender, turn: Callable[[], None]) -> dict[str, Visit]:
    """Ones that need no GPU."""
    turn()
    contender.step()
    return dict.fromkeys(("done", "host", "device"), lambda: 1e-3)


def test_what_fails_is_told_and_the_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(name: str, tensors: Refilled) -> Contender:
        if name == "fused":
            raise RuntimeError("no such kernel")
        return ASKED["plain"].build(name, tensors)

    monkeypatch.setattr(cuda, "visits_of", times_of)
    own, fused, foreach = cuda.measured(replace(ASKED["plain"], build=build), SMALL, 2, 1.0)[:3]
    assert (own.wrong, fused.wrong, foreach.wrong) == ("", "RuntimeError: no such kernel", "")
    assert (set(fused.seconds), foreach.slower["device"].median) == (set(), 1.0)


def test_other_numbers_are_told_beside_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(*_: object) -> None:
        raise AssertionError("weights: tensor 3 differs")

    monkeypatch.setattr(cuda, "visits_of", times_of)
    monkeypatch.setattr(cuda, "verify", differs)
    for each in cuda.measured(ASKED["clip"], SMALL, 2, 1.0):
        assert (each.wrong, set(each.seconds)) == (
            "AssertionError: weights: tensor 3 differs",
            {"done", "host", "device"},
        )


def test_an_error_of_a_whole_case_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(workload: Workload) -> Gradients:
        raise MemoryError("too large")

    (each,) = cuda.measured(replace(ASKED["plain"], gradients=fails), SMALL, 2, 1.0)
    assert (each.contender, each.wrong) == ("all", "MemoryError: too large")


def test_rows_are_written_as_they_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    told = Told(file)
    told.begin({"gpu": "none"}, "A machine.")
    for at in range(2):
        told.tell([Row("plain", "small", f"contender {at}")])
        entries = [json.loads(each) for each in file.read_text(encoding="utf-8").splitlines()]
        assert entries[0] == {"machine": {"gpu": "none"}}
        assert [each["row"]["contender"] for each in entries[1:]] == [f"contender {n}" for n in range(at + 1)]
    printed = capsys.readouterr().out.splitlines()
    assert (printed[0], len(printed)) == ("A machine.", 6)
