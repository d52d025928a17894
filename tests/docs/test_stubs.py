"""The stub of the extension module says what the module has: the same names, members and parameters."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import clr_native
from clr_native import _core

STUB = Path(clr_native.__file__).parent / "_core.pyi"

# A name's description: the parameters of a function, the members of a class, or the word for anything else.
Description = str | dict[str, "Description"]


def _parameters(function: ast.FunctionDef) -> str:
    """Names in order, with ``/``, ``*``, ``**``, and ``=`` where there is a default; no types, no values."""
    a = function.args
    plain = [*a.posonlyargs, *a.args]
    required = len(plain) - len(a.defaults)
    names = [p.arg + "=" * (i >= required) for i, p in enumerate(plain)]
    if a.posonlyargs:
        names.insert(len(a.posonlyargs), "/")
    if a.vararg or a.kwonlyargs:
        names.append("*" + (a.vararg.arg if a.vararg else ""))
    names += [p.arg + "=" * (d is not None) for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    if a.kwarg:
        names.append("**" + a.kwarg.arg)
    return f"({', '.join(names)})"


def _is_public(name: str) -> bool:
    return name == "__init__" or not name.startswith("_")


def described_stub(body: list[ast.stmt]) -> dict[str, Description]:
    names: dict[str, Description] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            marks = [ast.unparse(decorator) for decorator in node.decorator_list]
            mark = " ".join(marks)
            names[node.name] = mark if marks and mark != "staticmethod" else _parameters(node)
        elif isinstance(node, ast.ClassDef):
            names[node.name] = described_stub(node.body)
        elif isinstance(node, ast.AnnAssign):
            names[ast.unparse(node.target)] = "value"
        elif isinstance(node, ast.Assign):
            names[ast.unparse(node.targets[0])] = "value"
        elif not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr | ast.Pass):
            raise NotImplementedError(ast.unparse(node))
    return {name: what for name, what in names.items() if _is_public(name)}


def _signature(name: str, doc: str | None) -> str:
    """The parameters that pybind11 writes into the first line of a doc."""
    line = (doc or "").partition("\n")[0]
    line = re.sub(r"<[^<>]*>", "...", line)  # a default that has no source form
    try:
        (function,) = ast.parse(f"def {line}: ...").body
    except SyntaxError:
        return f"no signature in {line!r}"
    assert isinstance(function, ast.FunctionDef)
    return _parameters(function) if function.name == name else f"a signature of {function.name}"


def described_module(members: dict[str, Any]) -> dict[str, Description]:
    names: dict[str, Description] = {}
    for name, member in members.items():
        if (member.__doc__ or "").startswith("Initialize self."):
            continue  # a class that is not made by calling it
        if isinstance(member, staticmethod):
            member = member.__func__
        if isinstance(member, type):
            names[name] = described_module(dict(vars(member)))
        elif isinstance(member, property):
            names[name] = "property"
        elif callable(member):
            names[name] = _signature(name, member.__doc__)
        else:
            names[name] = "value"
    return {name: what for name, what in names.items() if _is_public(name)}


def differences(stub: dict[str, Description], module: dict[str, Description], where: str = "") -> list[str]:
    found = []
    for name in sorted(stub.keys() | module.keys()):
        ours, theirs = stub.get(name, "absent"), module.get(name, "absent")
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += differences(ours, theirs, f"{where}{name}.")
        elif ours != theirs:
            found.append(f"{where}{name}: {ours} in the stub, {theirs} in the module")
    return found


def compared(source: str) -> list[str]:
    return differences(described_stub(ast.parse(source).body), described_module(vars(_core)))


def test_the_stub_agrees_with_the_module() -> None:
    assert compared(STUB.read_text(encoding="utf-8")) == []


def test_everything_has_a_stub_that_is_typed() -> None:
    for node in ast.walk(ast.parse(STUB.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, node.name
            for parameter in [*node.args.args, *node.args.kwonlyargs]:
                assert parameter.annotation is not None or parameter.arg == "self", node.name


# --- can these tests fail? ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "class Policy:",
            "def extra() -> None: ...\nclass Policy:",
            "extra: () in the stub, absent in the module",
        ),
        ("class Policy:", "SIZE: int\nclass Policy:", "SIZE: value in the stub, absent in the module"),
        (
            "class Policy:",
            "class Policy:\n    def extra(self) -> int: ...",
            "Policy.extra: (self) in the stub",
        ),
        ("def build_info()", "def _build_info()", "build_info: absent in the stub, () in the module"),
        ("def ramp(", "def _hidden(", "Policy.ramp: absent in the stub"),
        ("class NativeOptimizer:", "class _NativeOptimizer:", "NativeOptimizer: absent in the stub, {"),
        ("gamma: float,", "", "Policy.cycles: (*, up, "),
        ("gamma: float,", "gamma: float = 1.0,", "gamma=, "),
        ("        *,\n", "", "Policy.cycles: (up, "),
        ("first: int", "start: int", "fill_range: (schedules, start, scales, lr, momentum) in the stub"),
        ("end: int", "end: int = 0", "Schedule.__init__: (self, pieces, spans, end=) in the stub"),
        (
            "    def followed_schedule(",
            "    @property\n    def followed_schedule(",
            "NativeOptimizer.followed_schedule: property in the stub, (self, group) in the module",
        ),
    ],
)
def test_a_change_of_the_stub_is_found(old: str, new: str, expected: str) -> None:
    source = STUB.read_text(encoding="utf-8")
    assert old in source
    found = compared(source.replace(old, new, 1))
    assert len(found) == 1
    assert expected in found[0]


def test_a_change_of_the_module_is_found() -> None:
    def function() -> None: ...

    function.__doc__ = "function(a: int, *, b: object = <a thing>) -> None\n\nText."
    both: dict[str, Any] = {"function": function, "Policy": type("Policy", (), {"size": property()})}
    assert differences({}, described_module(both)) == [
        "Policy: absent in the stub, {'size': 'property'} in the module",
        "function: absent in the stub, (a, *, b=) in the module",
    ]
    assert "no signature" in differences({"len": "(obj, /)"}, described_module({"len": len}))[0]
