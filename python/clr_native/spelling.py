"""Suggestions for words that are not known."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: object, known: Iterable[str]) -> str:
    """Returns the end of a message about a word that is not known: the known word that is near, if there is one."""
    from difflib import get_close_matches  # only errors need it

    plain = {each.lstrip("-"): each for each in known}  # the dashes of options would make any two alike
    near = get_close_matches(str(word).lstrip("-").lower(), list(plain), n=1, cutoff=0.65)
    return f"; did you mean {plain[near[0]]}?" if near else ""


def known_as(word: str, known: Iterable[str]) -> str:
    """Returns the known word that differs in hyphens and underscores only, or else ``word`` itself."""
    plain = word.replace("-", "_")
    return next((each for each in known if each.replace("-", "_") == plain), word)
