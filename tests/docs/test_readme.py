"""README.md and docs/: every command and every block of Python runs as shown, every figure is what its line makes."""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from clr_native.cli import main

ROOT = Path(__file__).parents[2]

# What is not run here, and why not.
NOT_RUN = {
    "pip install torch --index-url https://download.pytorch.org/whl/cpu": "installs; CI does it before the tests",
    'pip install "clr-native[demo]" && clr-native demo': "installs from the package index",
    'pip install ".[demo]" && clr-native demo': "installs; test_demo.py runs the command from end to end",
    "pip install clr-native": "installs from the package index",
    'pip install ".[test]" && pytest -n auto': "installs, and runs this; CI does it",
    "python -m bench.step.sharded": "takes half a minute; bench/results has what it printed",
    'pip install "clr-native[plot]"': "installs from the package index",
    "clr-native find": "trains for ten seconds; test_range_command.py runs it on less",
    "clr-native demo --bounds auto": "trains for half a minute; test_range_command.py runs it on less",
    "python -m bench.range_test.noise": "takes minutes; docs/range_test.md has what it printed",
    "python -m bench.range_test.digits": "takes minutes; docs/range_test.md has what it printed",
    "python -m bench.snapshots.ensemble": "takes minutes; docs/guide/averages.md has what it printed",
    "python -m bench.loop": "takes minutes; bench/results has what it printed",
    "python -m bench.paired": "takes minutes; bench/results has what it printed",
    "python -m bench.paired --workload scheduler": "takes a minute; bench/results has what it printed",
    "python -m bench.paired --workload whole-step": "takes minutes; bench/results has what it printed",
    "pytest bench --benchmark-only": "takes minutes",
    "nox -s docs": "installs; the workflow runs it",
    "nox -s newest": "takes ten minutes for each Python",
    "nox -s neon": "needs a cross compiler and qemu; a job of the workflow runs it",
    "pip install .": "installs; CI does it",
    'pip install ".[test,bench]"': "installs; CI does it with more",
    "pip install . -C cmake.define.CLR_NATIVE_CUDA=ON": "installs; CI does it",
    "pytest -m cuda": "needs a GPU",
    'pytest -m "slow or not slow"': "this test is one of them",
    "python -m bench.cuda": "needs a GPU",
    "tools/gpu/run.sh OUT": "takes minutes on a GPU machine; tests/cuda/test_gpu_script.py runs it on less",
    "python docs/figures.py": "writes into the checkout; test_figures does what it does, elsewhere",
    "clr-native plot": "a command's name, without a schedule",
    "clr-native values": "a command's name, without a schedule",
    "clr-native summary": "a command's name, without a schedule",
}
PROGRAMS = ("clr-native", "pip", "python", "pytest", "nox", "cmake", "git")
SHELL = set("|&;<>$`*")


# The package index shows README.md too, and finds its pictures here.
PICTURES = "https://raw.githubusercontent.com/clr-native/clr-native/main/"

# The blocks of this page import large packages, which need not be installed, and which warn.
FRAMEWORKS = "frameworks.md"
# The blocks of this page go on from each other. Those of all others stand by themselves.
ONE_STORY = "quickstart.md"
OF_FRAMEWORKS = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def load_figures() -> Any:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


figures = load_figures()
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in figures.PAGES}


def fenced(language: str) -> list[object]:
    """The blocks in a language, each with its page and what follows it."""
    found: list[object] = []
    for name, text in TEXTS.items():
        page = list(figures.blocks(text))
        if not page:
            continue
        if name == ONE_STORY:
            page = [page[0]._replace(text="".join(block.text for block in page))]
        for block, following in zip(page, [*page[1:], None], strict=True):
            if block.language == language:
                marks = OF_FRAMEWORKS if name == FRAMEWORKS else []
                found.append(pytest.param(name, block, following, id=f"{name}:{block.line}", marks=marks))
    return found


def inline_commands(text: str) -> Iterator[str]:
    prose = re.sub(r"^```.*?^```\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`\n]+)`", prose):
        if span.split()[0] in PROGRAMS and len(span.split()) > 1:
            yield span


def run_line(line: str) -> str:
    """What a line of a shell prints; of a line that must not be run, nothing."""
    command = re.sub(r"\s+#.*", "", line).strip()
    if not command or command in NOT_RUN:
        return ""
    words = shlex.split(command)
    assert words[0] == "clr-native", f"{command!r} must be run here, or stand in NOT_RUN with a reason"
    assert not SHELL & set(command), f"{command!r} needs a shell"
    with redirect_stdout(io.StringIO()) as printed:
        try:
            code: object = main(words[1:])
        except SystemExit as stop:  # --help
            code = stop.code
    assert code == 0, f"{command!r} ended with {code}"
    return printed.getvalue()


def run_shell(text: str) -> str:
    return "".join(run_line(line) for line in text.replace("\\\n", " ").splitlines())


def run_python(text: str, *, with_chatter: bool = False) -> None:
    """What a line prints stands beside it, in its comment. A framework prints more before."""
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, "a block of Python", "exec"), {})
    comments = re.findall(r"^\s*print\(.*\)  # (.*)$", text, flags=re.MULTILINE)
    lines = printed.getvalue().splitlines()
    if with_chatter:
        lines = lines[-len(comments) :]
    for comment, line in zip(comments, lines, strict=True):
        assert comment.partition(": ")[0] == line


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with figures.reproducibly(tmp_path):
        yield tmp_path


def save_files_of(page: str) -> None:
    for block in figures.blocks(TEXTS[page]):
        if block.language == "toml":
            figures.save_toml(block.text)


@pytest.mark.parametrize(("page", "block", "following"), fenced("sh"))
def test_commands(page: str, block: Any, following: Any, folder: Path) -> None:
    save_files_of(page)
    printed = run_shell(block.text)
    if following is not None and following.language == "text":
        assert printed == following.text
    for name in re.findall(r"--out (\S+)", block.text):
        assert (folder / name).exists()


@pytest.mark.parametrize(("page", "block", "following"), fenced("python"))
def test_python(page: str, block: Any, following: Any, folder: Path) -> None:
    if page == FRAMEWORKS:
        for package in re.findall(r"^(?:import|from) (\w+)", block.text, flags=re.MULTILINE):
            pytest.importorskip(package)
    run_python(block.text, with_chatter=page == FRAMEWORKS)


@pytest.mark.parametrize("page", TEXTS)
def test_commands_in_the_text(page: str, folder: Path) -> None:
    for command in inline_commands(TEXTS[page]):
        run_line(command)


def test_every_language_is_known() -> None:
    """`text` is output, which follows what prints it; `pycon` and `doctest` are run by test_doctests.py."""
    for page, text in TEXTS.items():
        before = None
        for block in figures.blocks(text):
            assert block.language in {"sh", "python", "toml", "text", "pycon", "doctest"}, f"{page}:{block.line}"
            assert block.language != "text" or before == "sh", f"{page}:{block.line} follows no command"
            before = block.language


def test_what_is_not_run_is_there() -> None:
    there = "\n".join(TEXTS.values())
    assert [command for command in NOT_RUN if command not in there] == []


# --- figures ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the figures as they are now."""
    made = tmp_path_factory.mktemp("figures")
    figures.draw(made)
    return made


COMMITTED = sorted((ROOT / "docs" / "figures").iterdir())


def test_figures(drawn: Path) -> None:
    assert {path.name for path in drawn.glob("*.svg")} == {path.name for path in COMMITTED}


@pytest.mark.parametrize("committed", COMMITTED, ids=lambda path: path.name)
def test_a_figure_is_not_stale(committed: Path, drawn: Path) -> None:
    before = committed.read_text(encoding="utf-8")
    version = re.search(r"Matplotlib v([\w.+]+)", before)
    assert version
    if version[1] != matplotlib.__version__:
        pytest.skip(f"drawn by matplotlib {version[1]}, which need not set text and ticks as {matplotlib.__version__}")
    assert (drawn / committed.name).read_text(encoding="utf-8") == before, "run python docs/figures.py"


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_has_the_lines_that_make_its_figures(page: str) -> None:
    shown = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", TEXTS[page])
    code = "".join(block.text for block in figures.blocks(TEXTS[page]))
    folder = ROOT if page == "README.md" else ROOT / "docs"
    for words, path in shown:
        assert words, f"{path} has no text for those who cannot see it"
        assert (folder / path.removeprefix(PICTURES)).resolve() in COMMITTED
        assert Path(path).name in code
    made = set(re.findall(r"[\w-]+\.svg", code))
    assert made == {Path(path).name for _, path in shown}


# --- can these tests fail? ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("make -j", "must be run here, or stand in NOT_RUN"),
        ("clr-native plot cyclic --base-lr 1", "ended with 2"),
        ("clr-native info | head -1", "needs a shell"),
    ],
)
def test_a_line_that_cannot_be_run_fails(line: str, words: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(words)):
        run_shell(f"{line}  # with a comment\n")


@pytest.mark.parametrize("text", ["print(1)  # 2: so it says", "print(1)", "unknown"])
def test_python_that_is_not_as_it_says_fails(text: str) -> None:
    with pytest.raises((AssertionError, ValueError, NameError)):
        run_python(text)


def test_commands_are_found_in_the_text() -> None:
    text = "`nox -s x` and `x`, `clr-native` or\n```sh\n`pip install`\n```\n`clr-native info`"
    assert list(inline_commands(text)) == ["nox -s x", "clr-native info"]
