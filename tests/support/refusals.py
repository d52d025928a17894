"""Rows of tables of what is refused: arguments, error and the words of its message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Row = tuple[dict[str, Any], type[Exception], str]


def refusals(names: str | Iterable[str], values: Sequence[Any], others: Sequence[Any], **further: Any) -> list[Row]:
    """Returns a row for each name and value: ValueError for `values`, and for those of `others`' types TypeError."""
    return [
        ({name: value, **further}, error, f"{name}={value!r} must be")
        for name in ([names] if isinstance(names, str) else names)
        for error, wrong in ((ValueError, values), (TypeError, others))
        for value in wrong
    ]
