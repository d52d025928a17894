"""Files that cannot be used, warnings, strange names and readers that go away: one line each, and never a traceback."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from clr_native.cli import _parser, main
from command_line import COMMAND, CYCLIC, refused, run

COMMANDS = _parser().commands


@pytest.fixture(autouse=True)
def bad_files(empty_folder: None) -> None:
    Path("folder.png").mkdir()
    Path("empty.toml").touch()
    Path("binary.toml").write_bytes(bytes(range(256)))
    Path("broken.toml").write_text("[name\nbase_lr = 1")
    Path("none.toml").write_text("base_lr = 1")


def options_for_files(metavar: str) -> list[list[str]]:
    """Every command with every option whose value is such a file."""
    return [
        [command, option]
        for command, parser in COMMANDS.items()
        for option, action in parser.options.items()
        if str(action.metavar).startswith("FILE") and ("toml" in str(action.metavar)) == (metavar == "toml")
    ]


SCHEDULE = {"plot": CYCLIC, "values": CYCLIC}
WRITTEN = options_for_files("picture or data")
READ = options_for_files("toml")


def test_the_commands_that_write_and_read_files() -> None:
    written, read = ([" ".join(each) for each in some] for some in (WRITTEN, READ))
    assert written == ["demo --out", "demo --json", "find --out", "find --json", "plot --out", "values --out"]
    assert read == ["plot --toml", "values --toml", "summary --toml"]


@pytest.mark.parametrize(("command", "option"), WRITTEN)
@pytest.mark.parametrize(
    ("path", "why", "advice"),
    [
        ("no/a.png", "No such file or directory", "make the folder no first"),
        ("no/there/a.png", "No such file or directory", "make the folder no/there first"),
        ("folder.png", "Is a directory", "name another file"),
        ("empty.toml/a.png", "Not a directory", "name another file"),
        (f"{'a' * 300}.png", "File name too long", "name another file"),
    ],
)
def test_a_file_that_cannot_be_written(
    command: str, option: str, path: str, why: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    said = refused(f"{command} {option} {path} {SCHEDULE.get(command, '')}", capsys)
    assert said.partition(": ")[2] == f"{option} {path} cannot be written ({why}): {advice}"
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(("command", "option"), READ)
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.toml", "cannot be read (No such file or directory): name a TOML file"),
        ("folder.png", "cannot be read (Is a directory): name a TOML file"),
        ("empty.toml/a", "cannot be read (Not a directory): name a TOML file"),
        ("empty.toml", "must hold at least one schedule: a table such as [name]"),
        ("binary.toml", "is not "),
        (
            "broken.toml",
            "is not TOML (Expected ']' at the end of a table declaration (at line 1, column 6)): mend it there",
        ),
        ("none.toml", "base_lr=1 must be in a table of its own: [name] before it"),
    ],
)
def test_a_file_that_cannot_be_read(
    command: str, option: str, path: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(f"{command} {option} {path}", capsys)
    assert said.startswith(f"clr-native {command}: {option} {path}")
    assert words in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[x]\nbase_lr = 1\nmax_rl = 2", "[x]: max_rl=2 is not a key of a cyclic schedule; did you mean max_lr?"),
        (
            "[x]\nkind = 'one-cycle'\ntotal_stesp = 2",
            "total_stesp=2 is not a key of a one_cycle schedule; did you mean tot",
        ),
        (
            "[[x]]\nn_stesp = 2\nbase_lr = 1",
            "[[x]] number 1: n_stesp=2 is not a key of a cyclic schedule; did you mean n_s",
        ),
        ("[x]\nkidn = 'ramp'", "[x]: kidn='ramp' is not a key of a cyclic schedule; did you mean kind?"),
        ("[[x.segmnets]]\nbase_lr = 1", "is not a key of a cyclic schedule; did you mean segments?"),
        (
            "[x]\nkind = 'rmap'",
            "[x]: kind='rmap' must be one of 'cyclic', 'one_cycle', 'ramp', 'sequence'; did you mean ramp?",
        ),
        ("[x]\nmode = 'exp-rnage'\nbase_lr = 1\nmax_lr = 2", "'linear_range'; did you mean exp_range?"),
        ("[x]\nmax-lr = 1\nmax_lr = 2", "[x]: max_lr=2 must not be given twice, with a hyphen and an underscore"),
        ("[[x]]\nn-steps = 1.5\nbase_lr = 1\nmax_lr = 2", "[[x]] number 1: n_steps=1.5 must be a whole number"),
        (
            "[y]\nbase_lr = 1\nmax_lr = 2\nmode = 'exp_range'\ngamma = 3",
            "--toml a.toml: y: the schedule at step=8 gives lr=",
        ),
    ],
)
@pytest.mark.parametrize("command", ["plot", "plot --out a.png", "values"])
def test_a_key_or_a_word_that_is_misspelt(
    command: str, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.toml").write_text(text)
    said = refused(f"{command} --toml a.toml", capsys)
    assert said.startswith(f"clr-native {command.split()[0]}: --toml a.toml: ")
    assert words in said


def test_keys_and_words_with_hyphens_or_underscores(capsys: pytest.CaptureFixture[str]) -> None:
    plain = (
        "[x]\nkind = 'one_cycle'\nmax_lr = 1\ntotal_steps = 9\n"
        "[[y]]\nn_steps = 3\nbase_lr = 1\nmax_lr = 2\nmode = 'exp_range'\n[[y]]\nbase_lr = 1\nmax_lr = 2\n"
    )
    printed = []
    for text in (plain, plain.replace("_", "-")):
        Path("a.toml").write_text(text)
        printed.append(run("values --toml a.toml --steps 9", capsys))
    assert printed[0] == printed[1]


# --- warnings, names, pipes -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_without_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    shown = warnings.showwarning
    Path("a.toml").write_text(
        '["\\u5b66"]\nbase_lr = 1\nmax_lr = 2', encoding="utf-8"
    )  # no such letter in matplotlib's font
    assert main(["plot", "--toml", "a.toml", "--out", "a.png"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "wrote a.png: \u5b66, steps 0 to 15,999\n"
    assert set(printed.err.splitlines()) == {
        r"clr-native: warning: Glyph 23398 (\N{CJK UNIFIED IDEOGRAPH-5B66}) missing from font(s) DejaVu Sans."
    }
    assert warnings.showwarning is shown


@pytest.mark.slow
@pytest.mark.parametrize("name", ["$x", "$\\frac$", "a\nb", "%(prog)s", "[x]", " "])
def test_a_name_is_no_formula(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text(f"[{json.dumps(name)}]\nbase_lr = 1\nmax_lr = 2", encoding="utf-8-sig")
    for out in ("a.png", "a.svg"):
        assert run(f"plot --toml a.toml --out {out}", capsys) == f"wrote {out}: {name}, steps 0 to 15,999\n"
        assert Path(out).stat().st_size > 1000


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *words], capture_output=True, env={**os.environ, **environment})


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["summary", "--steps-per-epoch", "9", "--epochs", "9"], ["plot", "--steps", "9"], ["values", "--steps", "2"]],
)
def test_a_name_that_cannot_be_printed(words: list[str]) -> None:
    Path("a.toml").write_text('["\\u5b66"]\nbase_lr = 1\nmax_lr = 2\n[y]\nbase_lr = 1\nmax_lr = 2', encoding="utf-8")
    ran = command(*words, "--toml", "a.toml", PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert rb"\u5b66" in ran.stdout


@pytest.mark.slow
def test_a_file_whose_name_is_not_text() -> None:
    ran = command("values", *CYCLIC.split(), "--out", os.fsdecode(b"\xff.csv"))
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.startswith(b"wrote \\udcff.csv: ")
    assert os.path.exists(b"\xff.csv")


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["--help", "plot --help", "plot cyclic --help", "--version", "info", f"values {CYCLIC}"]
)
def test_a_reader_that_is_gone_already(line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ran = subprocess.run([*COMMAND, *line.split()], stdout=writer, stderr=subprocess.PIPE, env=buffered)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (141, b"")


@pytest.mark.slow
def test_ctrl_c_while_it_prints() -> None:
    line = f"values {CYCLIC} --steps 1000000000"
    process = subprocess.Popen([*COMMAND, *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"step,lr,momentum\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, b"clr-native: interrupted\n")


# --- with numpy and torch alone ---------------------------------------------------------------------------------


def test_the_extra_that_readme_installs_brings_what_plot_needs() -> None:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = toml.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert '.[demo]"' in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert "clr-native[plot]" in project["optional-dependencies"]["demo"]


EXTRAS = ("matplotlib", "plotext", "rich", "sklearn", "mlxtend")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plot --help", ""),
        (f"values {CYCLIC}", ""),
        (f"summary {CYCLIC} --steps-per-epoch 9 --epochs 9", ""),
        ("info", ""),
        (f"plot {CYCLIC}", 'clr-native plot cyclic: plotext cannot be imported ({}): pip install "clr-native[plot]"\n'),
        (
            f"plot {CYCLIC} --out a.png",
            'clr-native plot cyclic: matplotlib cannot be imported ({}): pip install "clr-native[plot]"\n',
        ),
        ("demo", 'clr-native demo: scikit-learn cannot be imported ({}): pip install "clr-native[demo]"\n'),
        ("find", 'clr-native find: scikit-learn cannot be imported ({}): pip install "clr-native[demo]"\n'),
    ],
)
def test_without_extras_a_command_works_or_says_what_to_install(line: str, said: str) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS}));from clr_native.cli import main; exit(main())"
    ran = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True)
    start, _, end = said.partition("{}")
    assert ran.stderr.startswith(start)
    assert ran.stderr.endswith(end)
    assert ran.stderr.count("\n") == bool(said)
    assert (ran.returncode, ran.stdout == "") == ((2, True) if said else (0, False))
