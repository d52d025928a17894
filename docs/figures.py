"""Makes the figures of README.md and of the pages here by running the very lines that stand beside them.

``python docs/figures.py`` writes docs/figures/*.svg anew; test_readme.py fails where one is not what it writes.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib

from clr_native.cli import main

DOCS = Path(__file__).parent
PAGES = (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md")))


class Block(NamedTuple):
    """A fenced block: its language, its text, and the number of its first line in the page."""

    language: str
    text: str
    line: int


def blocks(markdown: str) -> Iterator[Block]:
    """Every fenced block of a page."""
    for block in re.finditer(r"^```([^\n`]*)\n(.*?)^```\s*$", markdown, flags=re.MULTILINE | re.DOTALL):
        yield Block(block[1].strip(), block[2], markdown.count("\n", 0, block.start()) + 2)


def draw(folder: Path) -> None:
    """Every picture of every page, into a folder, as the lines of the page name it."""
    with reproducibly(folder):
        for page in PAGES:
            for block in blocks(page.read_text(encoding="utf-8")):
                _draw(block, f"{page.name}, line {block.line}")


def _draw(block: Block, place: str) -> None:
    if block.language == "toml":
        save_toml(block.text)
    elif block.language == "python" and "savefig" in block.text:
        exec(compile(block.text, place, "exec"), {})
    elif block.language == "sh":
        for line in block.text.splitlines():
            if line.startswith("clr-native plot") and "--out" in line:
                code = main(shlex.split(line, comments=True)[1:])
                assert code == 0, f"{place}: {line}"


def save_toml(text: str) -> None:
    """A file that a page shows: its first line is its name, as a comment."""
    name = re.match(r"# ([\w-]+\.toml)\n", text)
    assert name, f"a block of TOML must begin with the name of the file, such as '# name.toml': {text!r}"
    Path(name[1]).write_text(text, encoding="utf-8")


@contextmanager
def reproducibly(folder: Path) -> Iterator[None]:
    """In a folder, without the user's settings of matplotlib, and with what it takes for equal bytes of SVG."""
    before, epoch = Path.cwd(), os.environ.get("SOURCE_DATE_EPOCH")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "clr-native"
        os.environ["SOURCE_DATE_EPOCH"] = "0"
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
            del os.environ["SOURCE_DATE_EPOCH"]
            if epoch is not None:
                os.environ["SOURCE_DATE_EPOCH"] = epoch


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        draw(Path(temporary))
        (DOCS / "figures").mkdir(exist_ok=True)
        for stale in (DOCS / "figures").glob("*.svg"):
            stale.unlink()
        for picture in sorted(Path(temporary).glob("*.svg")):
            (DOCS / "figures" / picture.name).write_bytes(picture.read_bytes())
            print(f"wrote docs/figures/{picture.name}")
