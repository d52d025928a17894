"""The handling of arguments in every command: one line for an error, and no half-written file."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeAlias

from clr_native.cli.parser import alternatives, given
from clr_native.spelling import known_as, nearest

# Ends a command with one line on standard error and exit code 2.
Fail: TypeAlias = Callable[[str], NoReturn]


class Checked(argparse.Action):
    """Stores the result of `check` for the text. A ValueError of `check` becomes the line `--name value problem`."""

    def __init__(self, *, check: Callable[[str], object], **settings: Any) -> None:
        super().__init__(**settings)
        self.check = check

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        try:
            setattr(namespace, self.dest, self.check(str(values)))
        except ValueError as problem:
            parser.error(f"{given(option_string or self.dest, values)} {problem}")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Returns a check that reads the text as an int between the two."""

    def check(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError("must be a whole number") from None
        if number < least:
            raise ValueError(f"must be at least {least}")
        if most is not None and number > most:
            raise ValueError(f"must be at most {most}")
        return number

    return check


def one_of(*choices: str) -> Callable[[str], str]:
    """Returns a check that accepts one of these texts."""

    def check(text: str) -> str:
        word = known_as(text, choices)
        if word not in choices:
            raise ValueError(f"must be {alternatives(choices)}{nearest(text, choices)}")
        return word

    return check


def path_ending_in(*endings: str) -> Callable[[str], Path]:
    """Returns a check that reads the text as a path with one of these endings."""

    def check(text: str) -> Path:
        if not text.lower().endswith(endings):
            raise ValueError(f"must end in {alternatives(endings)}")
        return Path(text)

    return check


def check_importable(module: str, package: str, extra: str, fail: Fail) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        fail(f'{package} cannot be imported ({error}): pip install "clr-native[{extra}]"')


def check_writable(option: str, path: Path, fail: Fail) -> None:
    """Fails unless the file can be written. Leaves no new file, and does not change an existing one."""
    try:
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.resolve().unlink()  # resolved, because `path` may be a link to a missing file
    except OSError as error:
        fail(not_written(option, path, error))


def not_written(option: str, path: Path, error: OSError) -> str:
    """Returns the reason why a file was not written, and what to do."""
    advice = f"make the folder {path.parent} first" if isinstance(error, FileNotFoundError) else "name another file"
    return f"{given(option, path)} cannot be written ({error.strerror}): {advice}"


@contextmanager
def whole_file(option: str, path: Path, what: str, fail: Fail) -> Iterator[BinaryIO]:
    """Opens a file that appears at `path` when everything is written. If something fails, the former file stays.

    Afterwards prints a line that says what was written.
    """
    check_writable(option, path, fail)
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():  # /dev/stdout or a pipe, which cannot be replaced
            with target.open("wb") as file:
                yield file
            return
        unfinished = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with unfinished.open("xb") as file:
                yield file
            if target.exists():
                shutil.copymode(target, unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(not_written(option, path, error))
    print(f"wrote {path}: {what}")
