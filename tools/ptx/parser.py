"""Reads PTX text as nvcc writes it."""

from __future__ import annotations

import re
import struct
from bisect import bisect_right

from ptx.errors import UnsupportedError
from ptx.syntax import Function, Instruction, Module, Name, Scope, Variable, integer
from ptx.types import DTYPES

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_STATEMENT = re.compile(r"\s*(?:(\.(?:loc|file)\b[^\n]*)|([$\w]+)\s*:(?!:)|([{}])|([^;{}]*(?:\{[^;]*)?);)")
_INSTRUCTION = re.compile(r"(?:@(!?)\s*([%$\w]+)\s+)?([a-z][\w.:]*)\s*(.*)$", re.DOTALL)
_TOP = re.compile(
    r"\s*(?:\.(?:version|target|address_size|file)\b[^\n]*|\.section[^{]*\{[^}]*\}|\.pragma[^;]*;"
    r"|(?P<function>(?:\.(?:visible|weak|extern)\s+)*\.(?:entry|func)\b)|(?P<variable>\.[^;]*);)"
)
_VARIABLE = re.compile(
    r"(?:\.(?:visible|weak|extern)\s+)*\.(param|global|const|shared|local)\s+(?:\.align\s+(\d+)\s+)?(?:\.ptr[^%$\w]*)?"
    r"(?:\.(?:ptr|global|const|shared|align)\s*\d*\s+)*\.(\w+)\s*(?:\.ptr(?:\s*\.\w+(?:\s+\d+)?)*\s+)?"
    r"([%$\w]+)\s*(\[\s*\d*\s*\])?\s*(?:=\s*(.*))?$",
    re.DOTALL,
)


def _bytes_of(text: str, kind: str, size: int) -> bytes:
    items = [item.strip() for item in text.strip().strip("{}").split(",")]
    made = bytearray()
    for item in items:
        if re.match(r"0[fF][0-9a-fA-F]{8}$|0[dD][0-9a-fA-F]{16}$", item):
            made += bytes.fromhex(item[2:])[::-1]
        elif re.match(r"-?\d", item):
            width = DTYPES[kind].itemsize
            made += struct.pack("<Q", integer(item) % 2**64)[:width]
        else:
            raise UnsupportedError(f"the initialiser {item!r}")
    return bytes(made).ljust(size, b"\0")


def variable(text: str) -> Variable:
    match = _VARIABLE.match(text.strip())
    if not match:
        raise UnsupportedError(f"the declaration {text.strip()!r}")
    space, alignment, kind, name, count, initial = match.groups()
    if kind not in DTYPES:
        raise UnsupportedError(f"the type in {text.strip()!r}")
    width = DTYPES[kind].itemsize
    items = 1 if count is None else int(count.strip("[] \t\n") or 0)
    size = width * items
    return Variable(name, space, int(alignment or width), size, _bytes_of(initial, kind, size) if initial else b"")


class _Text:
    def __init__(self, text: str) -> None:
        self.text = _COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
        self.ends = [i for i, c in enumerate(self.text) if c == "\n"]

    def line(self, position: int) -> int:
        while self.text[position : position + 1].isspace():
            position += 1
        return bisect_right(self.ends, position - 1) + 1


def _declare(function: Function, scope: int, text: str) -> None:
    if text.startswith(".reg"):
        _, kind, names = re.split(r"\s+", text, maxsplit=2)
        for name in names.split(","):
            name = re.sub(r"<\d+>", "<>", name.strip())
            function.scopes[scope].registers[name] = kind.lstrip(".")
    elif re.match(r"\.(param|local|shared)\b", text):
        declared = variable(text)
        function.scopes[scope].variables[declared.name] = declared
    elif not text.startswith(".pragma"):
        raise UnsupportedError(f"the directive {text!r}")


def _body(source: _Text, position: int, function: Function) -> int:
    """Reads from behind the opening brace; returns where the closing one ends."""
    scope, label = 0, ""
    while True:
        match = _STATEMENT.match(source.text, position)
        if not match:
            raise UnsupportedError(f"line {source.line(position)}: {source.text[position : position + 80].strip()!r}")
        start, position = position, match.end()
        _, found, brace, statement = match.groups()
        if found:
            label = found
            function.labels[label] = len(function.instructions)
        elif brace == "{":
            function.scopes.append(Scope(scope))
            scope = len(function.scopes) - 1
        elif brace == "}":
            parent = function.scopes[scope].parent
            if parent is None:
                return position
            scope = parent
        elif statement:
            statement = statement.strip()
            if statement.startswith(".branchtargets"):
                function.targets[label] = [name.strip() for name in statement.split(None, 1)[1].split(",")]
            elif statement.startswith("."):
                _declare(function, scope, statement)
            elif statement:
                function.instructions.append(_instruction(statement, source.line(start), scope))


def _instruction(text: str, line: int, scope: int) -> Instruction:
    match = _INSTRUCTION.match(text)
    if not match:
        raise UnsupportedError(f"line {line}: {text!r}")
    negated, guard, opcode, arguments = match.groups()
    return Instruction(opcode, arguments, Name(guard, negated=negated == "!") if guard else None, line, scope)


def _list(text: str) -> list[Variable]:
    return [variable(item) for item in text.split(",") if item.strip()]


_HEADER = re.compile(
    r"\s*(?:\((?P<results>[^)]*)\)\s*)?(?P<name>[$\w]+)\s*(?:\((?P<parameters>[^)]*)\))?"
    r"(?P<attributes>(?:\s*\.[a-z]\w*(?:\s+\d+(?:\s*,\s*\d+)*)?)*)\s*(?P<end>[{;])"
)


def _function(source: _Text, position: int, is_entry: bool) -> tuple[Function | None, int]:
    header = _HEADER.match(source.text, position)
    if not header:
        raise UnsupportedError(f"line {source.line(position)}: {source.text[position : position + 80].strip()!r}")
    results, parameters = _list(header["results"] or ""), _list(header["parameters"] or "")
    function = Function(header["name"], is_entry, parameters, results)
    threads = re.search(r"\.(?:maxntid|reqntid)\s+([\d\s,]+)", header["attributes"])
    if threads:
        function.max_threads = 1
        for size in threads[1].split(","):
            function.max_threads *= int(size)
    if header["end"] == ";":
        return None, header.end()
    function.scopes[0].variables.update({declared.name: declared for declared in [*parameters, *results]})
    return function, _body(source, header.end(), function)


def parse(text: str) -> Module:
    """The module that `text` defines. Instructions are understood when they are first executed, not here."""
    source = _Text(text)
    target = re.search(r"\.target\s+(\w+)", source.text)
    module = Module(target[1] if target else "", {}, {})
    position = 0
    while source.text[position:].strip():
        match = _TOP.match(source.text, position)
        if not match:
            raise UnsupportedError(f"line {source.line(position)}: {source.text[position : position + 80].strip()!r}")
        position = match.end()
        if match["function"]:
            function, position = _function(source, position, ".entry" in match["function"])
            if function:
                module.functions[function.name] = function
        elif match["variable"]:
            declared = variable(match["variable"])
            module.variables[declared.name] = declared
    return module
