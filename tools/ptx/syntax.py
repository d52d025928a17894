"""PTX text as objects: a module has variables and functions, a function has instructions, an instruction operands."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import cached_property

from ptx.errors import UnsupportedError


@dataclass(frozen=True)
class Name:
    """A register, a variable or a label, and bytes behind it."""

    name: str
    offset: int = 0
    negated: bool = False


@dataclass(frozen=True)
class Integer:
    value: int


@dataclass(frozen=True)
class Float:
    """A floating-point literal, kept as a double: every float32 literal is one."""

    value: float


@dataclass(frozen=True)
class Address:
    """`[base + offset]`; the base is a register, a variable, or a number."""

    base: Name | Integer
    offset: int


@dataclass(frozen=True)
class Group:
    """`{a, b}` or `a|b` or `(a, b)`."""

    items: tuple[Operand, ...]


Operand = Name | Integer | Float | Address | Group

_INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?$")
_SUM = re.compile(r"(.+?)\s*\+\s*(-?\w+)$")


def integer(text: str) -> int:
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    digits = digits.rstrip("U")
    octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
    return sign * (int(digits, 8) if octal else int(digits, 0))


def _split(text: str, separator: str) -> list[str]:
    """At separators that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in "{[(":
            depth += 1
        elif c in "}])":
            depth -= 1
        elif c == separator and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def operand(text: str) -> Operand:
    text = text.strip()
    if text[:1] in "{(" and text:
        return Group(tuple(operand(item) for item in _split(text[1:-1], ",") if item.strip()))
    if text.startswith("["):
        at = operand(text[1:-1])
        if isinstance(at, Name):
            return Address(Name(at.name), at.offset)
        if isinstance(at, Integer):
            return Address(at, 0)
        raise UnsupportedError(f"the address {text}")
    if "|" in text:
        return Group(tuple(operand(item) for item in text.split("|")))
    if text.startswith("!"):
        return Name(text[1:].strip(), negated=True)
    if re.match(r"0[fF][0-9a-fA-F]{8}$", text):
        return Float(struct.unpack(">f", bytes.fromhex(text[2:]))[0])
    if re.match(r"0[dD][0-9a-fA-F]{16}$", text):
        return Float(struct.unpack(">d", bytes.fromhex(text[2:]))[0])
    if _INTEGER.match(text):
        return Integer(integer(text))
    plus = _SUM.match(text)
    if plus:
        return Name(plus[1], integer(plus[2]))
    if re.match(r"[%$\w.]+$", text) and not text[0].isdigit():
        return Name(text)
    raise UnsupportedError(f"the operand {text!r}")


@dataclass
class Instruction:
    opcode: str
    arguments: str
    guard: Name | None
    line: int
    scope: int

    @cached_property
    def parts(self) -> list[str]:
        return self.opcode.replace("::", "__").split(".")

    @property
    def name(self) -> str:
        return self.parts[0]

    @cached_property
    def operands(self) -> list[Operand]:
        return [operand(text) for text in _split(self.arguments, ",")] if self.arguments.strip() else []

    def __str__(self) -> str:
        guard = f"@{'!' if self.guard.negated else ''}{self.guard.name} " if self.guard else ""
        return f"line {self.line}: {guard}{self.opcode} {' '.join(self.arguments.split())}".rstrip()


@dataclass(frozen=True)
class Variable:
    name: str
    space: str
    alignment: int
    size: int  # in bytes; 0 of an `.extern .shared` array, whose size the launch says
    initial: bytes = b""


@dataclass
class Scope:
    """Braces: names declared inside hide those outside."""

    parent: int | None
    registers: dict[str, str] = field(default_factory=dict)  # a name, or the stem of %r<17>: the type
    variables: dict[str, Variable] = field(default_factory=dict)


@dataclass
class Function:
    name: str
    is_entry: bool
    parameters: list[Variable]
    results: list[Variable]
    max_threads: int | None = None
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # the instruction that follows
    targets: dict[str, list[str]] = field(default_factory=dict)  # .branchtargets
    scopes: list[Scope] = field(default_factory=lambda: [Scope(None)])

    def register_type(self, name: str, scope: int | None) -> tuple[int, str] | None:
        """The scope that declares a register, and its type."""
        stem = name.rstrip("0123456789") + "<>"
        while scope is not None:
            registers = self.scopes[scope].registers
            kind = registers.get(name) or registers.get(stem)
            if kind:
                return scope, kind
            scope = self.scopes[scope].parent
        return None

    def variable(self, name: str, scope: int | None) -> tuple[int, Variable] | None:
        while scope is not None:
            if name in self.scopes[scope].variables:
                return scope, self.scopes[scope].variables[name]
            scope = self.scopes[scope].parent
        return None


@dataclass
class Module:
    """What one PTX text defines. `kernels`: its entry points by name."""

    target: str
    variables: dict[str, Variable]
    functions: dict[str, Function]

    @cached_property
    def kernels(self) -> dict[str, Kernel]:
        return {name: Kernel(self, function) for name, function in self.functions.items() if function.is_entry}


@dataclass(eq=False)
class Kernel:
    module: Module
    function: Function
    prepared: dict[object, object] = field(default_factory=dict)  # what launch() keeps between launches

    @property
    def parameters(self) -> list[Variable]:
        """In order, with their sizes in bytes."""
        return self.function.parameters
