"""Every example in a docstring of the package, and in a README block marked as one, gives what it shows."""

from __future__ import annotations

import doctest
import importlib
import locale
import pkgutil
import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import clr_native

README = Path(__file__).parents[2] / "README.md"

# What the extras bring. The package does without; its plots and demo do not.
EXTRAS = ("matplotlib", "mlxtend", "plotext", "rich", "sklearn")

MODULES = [
    "clr_native",
    *(
        module.name
        for module in pkgutil.walk_packages(clr_native.__path__, "clr_native.")
        if not module.name.endswith(".__main__")
    ),
]


def run(test: doctest.DocTest) -> int:
    """Runs the examples of one docstring; how many there were."""
    report: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False)
    assert results.failed == 0, "".join(report)
    return results.attempted


def run_module(module: types.ModuleType) -> int:
    return sum(run(test) for test in doctest.DocTestFinder().find(module, module.__name__))


def marked_blocks(markdown: str) -> Iterator[tuple[int, str]]:
    """Line and text of the fenced blocks whose info string says ``pycon`` or ``doctest``."""
    for block in re.finditer(r"^```([^\n`]*)\n(.*?)^```\s*$", markdown, flags=re.MULTILINE | re.DOTALL):
        if {"pycon", "doctest"} & set(re.findall(r"\w+", block[1])):
            yield markdown.count("\n", 0, block.start()) + 1, block[2]


def run_markdown(markdown: str, name: str) -> int:
    """Runs the marked blocks in order; a name that one defines is there in the next."""
    names: dict[str, object] = {}
    attempted = 0
    for line, text in marked_blocks(markdown):
        test = doctest.DocTestParser().get_doctest(text, {}, name, name, line)
        test.globs = names
        assert test.examples, f"{name}, line {line}: a block that is marked as a doctest has no example"
        attempted += run(test)
    return attempted


def imported(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRAS:
            raise
        pytest.skip(f"{name} needs {error.name}, which an extra of clr-native brings")


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str) -> None:
    run_module(imported(name))


# Where the names of the package come from. ScheduleValue's examples are those of what gives it.
PUBLIC = sorted({vars(clr_native)[name].__module__ for name in clr_native.__all__ if name != "ScheduleValue"})


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_modules_have_examples(name: str) -> None:
    assert name in MODULES
    assert run_module(importlib.import_module(name)) > 0


def test_the_doc_of_build_info_is_among_them() -> None:
    tests = doctest.DocTestFinder().find(importlib.import_module("clr_native._core"))
    assert [test.name for test in tests if test.examples] == ["clr_native._core.build_info"]


def test_examples_of_the_readme() -> None:
    if not README.exists():
        pytest.skip("there is no README.md beside tests/")
    run_markdown(README.read_text(encoding="utf-8"), README.name)


@pytest.fixture
def decimal_comma() -> Iterator[str]:
    """A locale that writes 0.5 as 0,5."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        for name in (
            "de_DE.UTF-8",
            "de_DE.utf8",
            "fr_FR.UTF-8",
            "pt_BR.UTF-8",
            "ru_RU.UTF-8",
            "de_DE",
            "German",
        ):
            try:
                locale.setlocale(locale.LC_ALL, name)
            except locale.Error:
                continue
            if locale.localeconv()["decimal_point"] == ",":
                yield name
                return
        pytest.skip("no locale with a decimal comma is installed")
    finally:
        locale.setlocale(locale.LC_ALL, before)


def test_numbers_look_the_same_in_a_locale_with_a_decimal_comma(decimal_comma: str) -> None:
    for name in PUBLIC:
        assert run_module(importlib.import_module(name)) > 0
    with pytest.raises(ValueError, match=r"gives lr=-0\.5 "):
        clr_native.CyclicSchedule(0.5, 1.5, step_size_up=1, scale_fn=lambda cycle: -1.0)(1)


# --- can these tests fail? ----------------------------------------------------------------------------------


def module_with(doc: str) -> types.ModuleType:
    module = types.ModuleType("made_up")
    exec(f"def function():\n    {doc!r}", module.__dict__)
    return module


@pytest.mark.parametrize("doc", [">>> 1 + 1\n3\n", ">>> unknown\n", ">>> 1 / 4\n0,25\n", ">>> 1 /\n1\n"])
def test_a_wrong_example_fails(doc: str) -> None:
    with pytest.raises(AssertionError, match="Failed example"):
        run_module(module_with(doc))
    with pytest.raises(AssertionError, match="Failed example"):
        run_markdown(f"# Title\n\n```pycon\n{doc}```\n", "made up")


def test_only_marked_blocks_run_and_they_share_names() -> None:
    markdown = "\n".join(
        [
            "```python\n>>> 1 / 0\n```",
            "```\n>>> 1 / 0\n```",
            "```pycon\n>>> x = 2\n```",
            "```python doctest\n>>> x + 1\n3\n>>> x\n2\n```",
        ]
    )
    assert run_markdown(markdown, "made up") == 3
    assert run_module(module_with("Text.\n\n>>> 1 + 1\n2\n")) == 1


def test_a_marked_block_without_an_example_fails() -> None:
    with pytest.raises(AssertionError, match="line 3"):
        run_markdown("Title\n\n```pycon\nx = 1\n```\n", "made up")
