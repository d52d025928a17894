"""Finds what functions reach: the owner of a method, and objects in closures, defaults and the user's module."""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Container, Iterator
from functools import partial
from typing import Any, Final

from clr_native.range_test.kinds import Restore
from clr_native.range_test.objects import FIXED, STANDARD

FUNCTIONS: Final = (types.FunctionType, types.MethodType, partial)
# A container in a variable with more members than this holds samples. They are not looked at.
MANY: Final = 1000
_MAPPINGS: Final = (dict, defaultdict, OrderedDict, Counter)
_PLAIN: Final = (*_MAPPINGS, list, set, deque, tuple, frozenset)


class Variables:
    """Finds the objects that functions reach through their variables.

    A function's variables are also where people note what it has seen: numbers and plain containers in them stay as the
    function leaves them. The objects in them, and in such containers, are state: they are remembered, and a variable
    that holds one holds it again afterwards.
    """

    def __init__(self, known: Container[int]) -> None:
        """`known`: ids of containers whose members are not looked at."""
        self._known = known
        self._modules: set[int] = set()  # ids of the dicts of globals that are looked at

    def follow_module_of(self, function: object) -> None:
        """Look at global variables that functions of this function's module read, unless the module is a library's."""
        while isinstance(function, (types.MethodType, partial)):
            function = function.func if isinstance(function, partial) else function.__func__
        if isinstance(function, types.FunctionType):
            function = inspect.unwrap(function)
        if isinstance(function, types.FunctionType):
            package = str(function.__globals__.get("__name__")).partition(".")[0]
            if package != "torch" and package not in STANDARD:
                self._modules.add(id(function.__globals__))

    def of(self, function: Any) -> tuple[list[object], list[Restore]]:
        """Returns the objects that are state, and functions that put them back into variables that may lose them."""
        if isinstance(function, types.MethodType):
            return [function.__self__, function.__func__], []
        if isinstance(function, partial):
            return list(self._objects([function.func, function.args, function.keywords])), []
        found: list[object] = [*(function.__defaults__ or ()), function.__kwdefaults__, vars(function)]
        restores: list[Restore] = []
        for cell in function.__closure__ or ():
            try:
                held = cell.cell_contents
            except ValueError:  # nothing has been assigned yet
                continue
            found.append(held)
            if _is_state(held):
                restores.append(functools.partial(setattr, cell, "cell_contents", held))
        if id(function.__globals__) in self._modules:
            for name in _globals_read(function.__code__):
                held = function.__globals__.get(name)
                if isinstance(held, types.FunctionType) and id(held.__globals__) not in self._modules:
                    continue
                found.append(held)
                if _is_state(held):
                    restores.append(functools.partial(function.__globals__.__setitem__, name, held))
        return list(self._objects(found)), restores

    def _objects(self, found: list[object]) -> Iterator[object]:
        """Yields the objects in `found`, and in containers in it, that can change and are no plain containers."""
        seen: set[int] = set()
        while found:
            value = found.pop()
            if type(value) in FIXED or id(value) in seen or id(value) in self._known:
                continue
            seen.add(id(value))
            if type(value) not in _PLAIN:
                yield value
            elif len(value) <= MANY:  # type: ignore[arg-type]  # all these have one
                found.extend(value.values() if type(value) in _MAPPINGS else value)  # type: ignore[attr-defined, arg-type]  # as above


def _is_state(value: object) -> bool:
    """True if the value is an object other than a function, a plain container or a number."""
    kind = type(value)
    return kind not in FIXED and kind not in _PLAIN and not issubclass(kind, (*FUNCTIONS, type, types.ModuleType))


def _globals_read(code: types.CodeType) -> set[str]:
    """Returns the names of globals that a function's code reads, and the code of functions inside it."""
    names = {each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return names.union(*map(_globals_read, inner))
