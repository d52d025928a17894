"""The demo: its data, its training loop, what it says and what it writes."""

from __future__ import annotations

import io
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from torch.nn import functional

from clr_native.cli import main
from clr_native.demo import contenders
from clr_native.demo.data import Digits, load
from clr_native.demo.report import print_results
from clr_native.demo.results import Results, max_weight_difference
from clr_native.demo.training import Run, train

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture(autouse=True)
def one_thread(own_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load("digits")


def run_once(digits: Digits, contender: contenders.Contender, epochs: int = 1, seed: int = 0) -> Run:
    return train(digits, contender, epochs, seed, on_step=lambda run: None, on_epoch=lambda run: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train_count", "test_count", "side"), [("mnist", 4000, 1000, 28), ("digits", 1437, 360, 8)]
)
def test_data(name: str, train_count: int, test_count: int, side: int) -> None:
    data = load(name)
    assert data.train_images.shape == (train_count, 1, side, side)
    assert data.test_images.shape == (test_count, 1, side, side)
    assert data.train_images.dtype == torch.float32
    assert data.train_images.mean().item() == pytest.approx(0, abs=1e-4)
    assert data.train_images.std().item() == pytest.approx(1, abs=1e-3)
    for labels in (data.train_labels, data.test_labels):
        share = labels.bincount(minlength=10) / len(labels)
        assert share.min() > 0.09
        assert share.max() < 0.11


def test_an_epoch_has_every_image_once_and_moves_it_by_up_to_the_shift() -> None:
    images = torch.rand(50, 1, 6, 6) + torch.arange(50).reshape(50, 1, 1, 1)
    data = Digits(images, torch.arange(50), images, torch.arange(50), shift=1)
    padded = functional.pad(images, [1] * 4, value=images.min().item())
    labels, positions = [], set()
    for batch, batch_labels in data.batches(16):
        for image, label in zip(batch, batch_labels, strict=True):
            places = [
                (row, column)
                for row in range(3)
                for column in range(3)
                if torch.equal(padded[label, :, row : row + 6, column : column + 6], image)
            ]
            assert len(places) == 1
            positions.add(places[0])
            labels.append(int(label))
    assert sorted(labels) == list(range(50))
    assert labels != list(range(50))
    assert len(positions) > 5


def test_the_seed_decides_the_run(digits: Digits) -> None:
    first, again = (run_once(digits, contenders.CLR_NATIVE, seed=3) for _ in range(2))
    other = run_once(digits, contenders.CLR_NATIVE, seed=4)
    assert first.loss == again.loss
    assert max_weight_difference(first.network, again.network) == 0
    assert max_weight_difference(first.network, other.network) > 0


def test_the_run_follows_the_cycle(digits: Digits) -> None:
    run = run_once(digits, contenders.CLR_NATIVE, epochs=5)
    assert len(run.lr) == len(run.momentum) == len(run.loss) == len(run.optimizer_seconds) == 5 * 23
    assert len(run.test_accuracy) == len(run.epoch_loss) == 5
    peak, bottom = 2 * 23, 4 * 23
    assert (run.lr[0], run.lr[peak], run.lr[bottom]) == (0.002, 0.08, 0.002)
    assert (run.momentum[0], run.momentum[peak], run.momentum[bottom]) == (0.95, 0.85, 0.95)
    assert max(run.lr[bottom:]) <= 0.041
    assert run.epoch_loss[-1] == pytest.approx(sum(run.loss[-23:]) / 23)
    assert all(seconds > 0 for seconds in run.optimizer_seconds)


def test_max_weight_difference_sees_one_weight(digits: Digits) -> None:
    network = run_once(digits, contenders.TORCH).network
    other = deepcopy(network)
    assert max_weight_difference(network, other) == 0
    with torch.no_grad():
        next(iter(other.parameters())).flatten()[7] += 0.5
    assert max_weight_difference(network, other) == pytest.approx(0.5, abs=1e-6)


def run_demo(options: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The results as JSON, and what was printed."""
    assert main(["demo", "--data", "digits", "--threads", "1", *options.split()]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(Path("r.json").read_text()), printed.out


def test_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, printed = run_demo("--epochs 5 --seed 1 --out a.png --json r.json", capsys)
    assert results["max_weight_difference"] == 0.0
    assert results["test_accuracy"].keys() == results["optimizer_seconds"].keys() == {"clr_native", "torch"}
    assert 0.9 < results["test_accuracy"]["clr_native"] <= 1
    assert results["test_accuracy"]["torch"] == results["test_accuracy"]["clr_native"]
    step, total = results["median_step_seconds"], results["optimizer_seconds"]
    assert results["ratio"] == pytest.approx(step["torch"] / step["clr_native"])
    assert all(0 < step[library] < total[library] for library in ("clr_native", "torch"))
    assert (results["data"], results["epochs"], results["steps"]) == ("digits", 5, 115)
    assert (results["seed"], results["threads"]) == (1, 1)
    assert results["versions"]["torch"] == torch.__version__
    assert "largest difference of any weight: 0 " in printed
    assert f"{results['test_accuracy']['torch']:.2%}" in printed
    assert "WARNING" not in printed
    assert imread("a.png").std() > 0.05
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "r.json"}


def test_no_compare(capsys: pytest.CaptureFixture[str]) -> None:
    results, printed = run_demo("--epochs 1 --no-compare --json r.json", capsys)
    assert results["test_accuracy"].keys() == results["optimizer_seconds"].keys() == {"clr_native"}
    assert results["max_weight_difference"] is None
    assert results["ratio"] is None
    assert "CyclicLR" not in printed
    assert imread("clr-native-demo.png").ndim == 3


RESULTS = Results(
    data="digits",
    epochs=1,
    steps=10,
    seed=0,
    threads=1,
    test_accuracy={"clr_native": 0.5, "torch": 0.25},
    optimizer_seconds={"clr_native": 0.001, "torch": 0.005},
    median_step_seconds={"clr_native": 0.0001, "torch": 0.0004},
    max_weight_difference=0.0,
    ratio=4.0,
    versions={},
)


def printed_results(results: Results, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_results(Console(file=stream, width=80), results)
    stream.seek(0)
    return stream.read()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_side_by_side(encoding: str) -> None:
    text = printed_results(RESULTS, encoding)
    for words in ("50.00%", "25.00%", "1.0 ms", "5.0 ms", "100.0 us", "400.0 us", "4.0x", "weight: 0 "):
        assert words in text
    assert "WARNING" not in text


@pytest.mark.parametrize(("difference", "words"), [(0.00125, "0.00125"), (float("nan"), "nan")])
def test_a_difference_is_a_warning(difference: float, words: str) -> None:
    text = printed_results(replace(RESULTS, max_weight_difference=difference))
    assert f"WARNING: largest difference of any weight: {words}, where 0 is expected" in text
    assert "the same)" not in text
