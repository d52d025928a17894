"""The site of docs/: its reference has every public name and argument, and what checks its links sees a dead one."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import clr_native

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")


def load(name: str) -> Any:
    """A file of docs/, which is no package. griffe, which only the site needs, is a stand-in."""
    griffe = types.ModuleType("griffe")
    griffe.Extension = object  # type: ignore[attr-defined]
    before, sys.modules["griffe"] = sys.modules.get("griffe"), griffe
    try:
        spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        del sys.modules["griffe"]
        if before is not None:
            sys.modules["griffe"] = before


as_markdown = load("docstrings").as_markdown
faults = load("check_site").faults


# --- the reference ------------------------------------------------------------------------------------------


def test_the_reference_has_every_public_name() -> None:
    shown = re.findall(r"^::: clr_native\.(\S+)$", REFERENCE, flags=re.MULTILINE)
    assert sorted(shown) == sorted([*clr_native.__all__, "schedules.Schedule"])


def documented(name: str) -> set[str]:
    """The names of the arguments that the site lists for a class or function."""
    text = as_markdown(inspect.cleandoc(vars(clr_native)[name].__doc__))
    section = re.search(r"^Args:\n((?: +.*\n|\n)*)", text, flags=re.MULTILINE)
    entries = re.findall(r"^    (\w+(?:, \w+)*): ", section[1] if section else "", flags=re.MULTILINE)
    return {argument for entry in entries for argument in entry.split(", ")}


WITH_ARGUMENTS = sorted(name for name in clr_native.__all__ if documented(name))


@pytest.mark.parametrize("name", WITH_ARGUMENTS)
def test_the_reference_has_every_argument(name: str) -> None:
    parameters = inspect.signature(vars(clr_native)[name]).parameters
    assert documented(name) == parameters.keys()


def test_arguments_are_found() -> None:
    assert {"FusedCyclicSGD", "CyclicSchedule", "CyclicLR", "lr_range_test"} <= set(WITH_ARGUMENTS)


# --- docstrings as Markdown ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        ("From 0 to 2**63 - 2.", r"From 0 to 2\*\*63 - 2."),
        ("At most ``2**63``, or 2 * 3.", r"At most ``2**63``, or 2 \* 3."),
        ("* a 2**k\n  b\n* ``c``", "* a 2\\*\\*k\n  b\n* ``c``"),
        ("With k::\n\n    a = 2**-k\n\nand 2**k.", "With k:\n\n    a = 2**-k\n\nand 2\\*\\*k."),
        ("See :class:`CyclicLR` in docs/guide/faq.md.", "See `CyclicLR` in [docs/guide/faq.md](guide/faq.md)."),
        ("Text.\n\n>>> 2**3\n8\n\nMore.", "Text.\n\n```pycon\n>>> 2**3\n8\n```\n\nMore."),
        ("Args:\n    a, b,\n        c: three.\n    d: one.", "Args:\n    a, b, c: three.\n    d: one."),
    ],
)
def test_markdown_of_a_docstring(docstring: str, markdown: str) -> None:
    assert as_markdown(docstring) == markdown


# --- links inside the built site ----------------------------------------------------------------------------

PAGES = {
    "index.html": '<h1 id="top">A</h1> <a href="./guide/faq/#why">b</a> <img src="a.svg"> <a href="https://a.b/c">c</a>',
    "guide/faq/index.html": '<h2 id="why">B</h2> <a href="../..">a</a> <a href="#why">b</a> <a href="../../#top">c</a>',
    "404.html": '<a href="/guide/faq/">from the root</a>',
    "a.svg": "<svg/>",
}


def write(site: Path, pages: dict[str, str]) -> Path:
    for name, text in pages.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    return site


def test_a_sound_site_has_no_faults(tmp_path: Path) -> None:
    assert faults(write(tmp_path, PAGES)) == []


@pytest.mark.parametrize(
    ("name", "added", "fault"),
    [
        ("index.html", '<img src="b.svg">', "index.html: b.svg leads nowhere"),
        ("index.html", '<a href="guide/">d</a>', "index.html: guide/ leads nowhere"),
        ("index.html", '<a href="#what">d</a>', "index.html: #what leads to no place in index.html"),
        (
            "guide/faq/index.html",
            '<a href="../../#why">d</a>',
            "guide/faq/index.html: ../../#why leads to no place in index.html",
        ),
        ("lonely/index.html", '<a href="..">d</a>', "lonely/index.html: no page leads here"),
    ],
)
def test_a_fault_of_a_site_is_found(tmp_path: Path, name: str, added: str, fault: str) -> None:
    assert faults(write(tmp_path, PAGES | {name: PAGES.get(name, "") + added})) == [fault]
