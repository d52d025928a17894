"""An extension of griffe, which reads docstrings for docs/reference.md: it makes Markdown of them.

Docstrings are written for Python's help(). Taken as Markdown, a line that begins with ``>>>`` is a quotation three
deep, ``2**63`` outside of code begins bold print and loses its stars, and two colons before a formula are shown.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

# What keeps its stars: an example, what is indented after two colons, a span of code.
CODE = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*|::$\n(?:\n| +.*(?:\n|\Z))+|``[^`]*``", flags=re.MULTILINE)
# Names that share an entry of arguments and do not fit into its first line.
NAMES = re.compile(r"^( +(?:\w+, )*\w+,)\n +(?=(?:\w+, )*\w+: )", flags=re.MULTILINE)
# A star, unless it begins an item of a list.
STAR = re.compile(r"^( *\* )|\*", flags=re.MULTILINE)
ROLE = re.compile(r":\w+:(?=`)")
PAGE = re.compile(r"\bdocs/([\w/]+\.md)\b")


def as_markdown(docstring: str) -> str:
    """A docstring with the same words, to be read as Markdown. Pages that it names are linked, from docs/ itself."""
    parts, end = [], 0
    for code in CODE.finditer(docstring):
        parts += [_prose(docstring[end : code.start()]), _code(code[0], code[1])]
        end = code.end()
    return "".join([*parts, _prose(docstring[end:])])


def _prose(text: str) -> str:
    text = STAR.sub(lambda star: star[1] or r"\*", NAMES.sub(r"\1 ", text))
    return PAGE.sub(r"[docs/\1](\1)", ROLE.sub("", text))


def _code(text: str, indent: str | None) -> str:
    if indent is not None:
        return f"{indent}```pycon\n{text}\n{indent}```"
    return text.removeprefix(":")


class MarkdownDocstrings(griffe.Extension):  # type: ignore[misc]  # griffe is installed for the site alone
    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
