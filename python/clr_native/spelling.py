"""Words that a user writes, beside those that are known."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: object, known: Iterable[str]) -> str:
    """What ends a message about a word that is not known: the one that was meant, if any is near."""
    from difflib import get_close_matches  # only errors need it

    plain = {each.lstrip("-"): each for each in known}  # the dashes of options would make any two alike
    near = get_close_matches(str(word).lstrip("-").lower(), list(plain), n=1, cutoff=0.65)
    return f"; did you mean {plain[near[0]]}?" if near else ""


def known_as(word: str, known: Iterable[str]) -> str:
    """The known word that ``word`` is but for hyphens and underscores, or else ``word`` itself."""
    plain = word.replace("-", "_")
    return next((each for each in known if each.replace("-", "_") == plain), word)
