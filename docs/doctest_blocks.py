"""An extension of griffe, which reads docstrings for docs/reference.md: it makes Markdown of them.

Docstrings are written for Python's help(). In Markdown a line that begins with ``>>>`` would be a quotation three deep,
and two colons in front of a formula would be shown.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", flags=re.MULTILINE)


class DoctestBlocks(griffe.Extension):  # type: ignore[misc]  # griffe is installed for the site alone
    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)
