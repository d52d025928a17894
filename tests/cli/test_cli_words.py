"""Words of the `clr-native` command: each misspelt, abbreviated, with hyphens or underscores; and what helps say."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from clr_native.cli import _parser, main
from clr_native.cli.parser import Parser
from command_line import CYCLIC, refused, run

pytestmark = pytest.mark.usefixtures("empty_folder")


def parsers(parser: Parser, *words: str) -> Iterator[tuple[list[str], Parser]]:
    """Every command and every kind of schedule in it, with the words that lead there."""
    yield list(words), parser
    for name, each in parser.commands.items():
        yield from parsers(each, *words, name)


ALL = list(parsers(_parser()))
OPTIONS = [(words, parser, option) for words, parser in ALL for option in parser.options if option != "-h"]


def misspelt(word: str) -> list[str]:
    """A letter dropped, a letter doubled, two swapped, another one: in the middle of the word."""
    i = (len(word) + 2) // 2
    swapped = word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :]
    return [word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:], swapped, word[:i] + "q" + word[i + 1 :]]


def shown(each: object) -> str:
    """The name of a case."""
    return " ".join(each) if isinstance(each, list) else each if isinstance(each, str) else ""


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    line = refused(" ".join(words), capsys)
    assert list(Path().iterdir()) == []
    return line


@pytest.mark.slow
@pytest.mark.parametrize(("words", "parser", "option"), OPTIONS, ids=shown)
def test_every_option_misspelt_is_named_with_the_right_one(
    words: list[str], parser: Parser, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in set(misspelt(option)) - parser.options.keys():
        expected = f"{' '.join(['clr-native', *words])}: unrecognised {wrong}; did you mean {option}?"
        for rest in (["3"], ["--help"], []):
            assert said([*words, wrong, *rest], capsys) == expected
        assert said([*words, f"{wrong}=3"], capsys) == expected


@pytest.mark.parametrize(("words", "parser"), ALL, ids=shown)
def test_every_command_misspelt_is_named_with_the_right_one(
    words: list[str], parser: Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in parser.commands:
        for wrong in set(misspelt(name)) - parser.commands.keys():
            expected = f"{' '.join(['clr-native', *words])}: unrecognised {wrong}; did you mean {name}?"
            assert said([*words, wrong, "--nothing"], capsys) == expected
    expected = "unexpected nothing: every value" if not parser.commands else "unrecognised nothing: "
    assert f": {expected}" in said([*words, "nothing"], capsys)
    assert said([*words, "-x"], capsys).endswith(
        f": unrecognised -x; `{' '.join(['clr-native', *words])} --help` lists the options"
    )


def choices(action: argparse.Action) -> list[str]:
    return str(action.metavar)[1:-1].split(",") if str(action.metavar).startswith("{") else []


VALID = {"cyclic": "--base-lr 1 --max-lr 2", "one-cycle": "--max-lr 1 --total-steps 9"}
VALID["ramp"] = "--start-lr 1 --end-lr 2 --num-steps 9"


@pytest.mark.parametrize(("words", "parser", "option"), OPTIONS, ids=shown)
def test_every_choice_misspelt_is_named_with_the_right_one(
    words: list[str], parser: Parser, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for choice in choices(parser.options[option]):
        for wrong in set(misspelt(choice)[:3]) - {choice}:
            line = said([*words, *VALID.get(words[-1], "").split(), option, wrong], capsys)
            assert f": {option} {wrong} must be " in line
            assert line.endswith(f"; did you mean {choice}?")


@pytest.mark.slow
@pytest.mark.parametrize(("words", "parser", "option"), OPTIONS, ids=shown)
def test_every_option_without_its_value_or_with_one_too_many(
    words: list[str], parser: Parser, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = " ".join(["clr-native", *words])
    if parser.options[option].nargs == 0:
        expected = f"{name}: {option}=3 must be {option} alone, which takes no value"
        assert said([*words, f"{option}=3"], capsys) == expected
    else:
        expected = f"{name}: {option} must be followed by a value: {option} {parser.options[option].metavar}"
        assert said([*words, option], capsys) == expected
        assert said([*words, option, "--help"], capsys) == expected


@pytest.mark.parametrize(("words", "parser"), ALL, ids=shown)
def test_every_help_is_plain_text_with_the_options_before_the_formulas(
    words: list[str], parser: Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for mark in ("%%", "%(", "``", "==SUPPRESS==", "None", " True", " False", "see above"):
        assert mark not in shown
    above, _, _ = shown.partition("\noptions:\n")
    assert " = " not in above
    assert ("p = step % T" in " ".join(shown.split())) == (words[-1:] == ["cyclic"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "plot --max-lr 1 cyclic --base-lr 1",
            " plot: --max-lr must stand after cyclic or one-cycle, of which it is an",
        ),
        ("--seed 3 demo", ": --seed must stand after demo or find, of which it is an option"),
        ("plot --max-rl 1 cyclic", " plot: unrecognised --max-rl; did you mean --max-lr?"),
        ("plot cyclic -max-lr 1", " plot cyclic: unrecognised -max-lr; did you mean --max-lr?"),
        ("plot cyclic --base 1", " plot cyclic: unrecognised --base; did you mean --base-lr?"),
        ("plot cyclic --MAX-LR 1", " plot cyclic: unrecognised --MAX-LR; did you mean --max-lr?"),
        ("plot cyclic --base-lr 1 2", " plot cyclic: unexpected 2: every value must follow its option"),
        ("plot -- cyclic", " plot: unrecognised --; `clr-native plot --help` lists the options"),
    ],
)
def test_words_in_a_wrong_place(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(line, capsys).startswith(f"clr-native{words}")


@pytest.mark.parametrize(
    "pair",
    [
        "plot one-cycle --max-lr 1 --total-steps 9",
        "values one-cycle --max-lr 1 --total-steps 9 --final-div-factor=1e-1 --no-cycle-momentum",
        "values cyclic --base-lr 1 --max-lr 2 --mode exp_range --gamma 0.9 --steps 9",
        "values cyclic --base-lr 1 --max-lr 2 --mode linear_range --decay-steps 9 --steps 9",
        "summary cyclic --base-lr 1 --max-lr 2 --steps-per-epoch 9 --epochs 9",
    ],
)
def test_hyphens_and_underscores_are_the_same(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = run(pair, capsys)
    plain = [word.replace("_", "-") for word in pair.split()]
    under = ["--" * word.startswith("--") + word.lstrip("-").replace("-", "_") for word in pair.split()]
    under = [word if "=1e" not in word else word.replace("1e_1", "1e-1") for word in under]
    for line in (plain, under):
        assert run(" ".join(line), capsys) == expected


def test_a_value_may_begin_with_a_hyphen(capsys: pytest.CaptureFixture[str]) -> None:
    expected = "clr-native plot cyclic: --max-lr -1e-3 must be 0 or from 1e-270 to 1e+270"
    for pair in ("--max-lr -1e-3", "--max-lr=-1e-3", "--max_lr -1e-3"):
        assert refused(f"plot {CYCLIC} {pair}", capsys) == expected


def test_the_tables_are_whole() -> None:
    assert [" ".join(words) for words, _ in ALL[1:]] == [
        "info",
        "demo",
        "find",
        *(
            " ".join(each)
            for command in ("plot", "values", "summary")
            for each in ((command,), *((command, kind) for kind in VALID))
        ),
    ]
    assert ("plot cyclic", "--no-decay-base") in [(" ".join(words), option) for words, _, option in OPTIONS]
