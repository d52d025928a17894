"""Checks the words of a command line before argparse does. Errors name an unknown word and the nearest known one."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn

from clr_native.spelling import known_as, nearest


class UsageError(Exception):
    """The user's request cannot be met. The message is the one line to print."""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line, by raising UsageError."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(" ".join(f"{self.prog}: {message}".splitlines()))

    @property
    def options(self) -> dict[str, argparse.Action]:
        return {name: action for action in self._actions for name in action.option_strings}

    @property
    def commands(self) -> dict[str, Parser]:
        """The commands that may follow the options, each with its own parser."""
        found = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return next((dict(action.choices) for action in found), {})

    def parse_known_args(  # type: ignore[override]  # its overloads let the namespace be of any class
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's method, which argparse calls for a command too."""
        return super().parse_known_args(self._spelt(sys.argv[1:] if args is None else args), namespace)

    def _spelt(self, given: Sequence[str]) -> list[str]:
        """Returns the words, with options in their known spelling and values attached. Refuses unknown words."""
        words = deque(given)
        spelt: list[str] = []
        while words:
            word = words.popleft()
            if not word.startswith("-") or word == "-":
                return [*spelt, self._command(word), *words]
            name, attached, value = word.partition("=")
            name = known_as(name, self.options)
            if name not in self.options:
                self._refuse_option(name)
            action = self.options[name]
            if action.nargs == 0 and attached:
                self.error(f"{shlex.quote(word)} must be {name} alone, which takes no value")
            if action.nargs != 0 and not attached:
                if not words or words[0].startswith("--"):
                    self.error(f"{name} must be followed by a value: {name} {action.metavar}")
                value = words.popleft()
            spelt.append(name if action.nargs == 0 else f"{name}={value}")
        return spelt

    def _command(self, word: str) -> str:
        commands = self.commands
        name = known_as(word, commands)
        if not commands:
            self.error(f"unexpected {shlex.quote(word)}: every value must follow its option")
        if name not in commands:
            self.error(f"unrecognised {shlex.quote(word)}{nearest(word, commands) or f': {alternatives(commands)}'}")
        return name

    def _refuse_option(self, name: str) -> NoReturn:
        owners = [
            command for command, parser in self.commands.items() if known_as(name, parser.options) in parser.options
        ]
        if owners:
            self.error(f"{name} must stand after {alternatives(owners)}, of which it is an option")
        later = [each for parser in self.commands.values() for each in parser.options]
        advice = nearest(name, self.options) or nearest(name, later) or f"; `{self.prog} --help` lists the options"
        self.error(f"unrecognised {shlex.quote(name)}{advice}")


def alternatives(words: Sequence[str] | dict[str, Any]) -> str:
    """Returns the words as a list to choose from: "a, b or c"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def option(name: str) -> str:
    """Returns the option for an argument of this name."""
    return f"--{name.replace('_', '-')}"


def given(name: str, value: object) -> str:
    """Returns an option with its value as it can be typed, for messages."""
    return f"{name} {shlex.quote(str(value))}"
