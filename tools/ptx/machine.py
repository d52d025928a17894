"""The state of a launch: registers, variables, and where each thread is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ptx.errors import PtxError, UnsupportedError
from ptx.memory import Memory
from ptx.spaces import WINDOW_BITS, WINDOWS, Generic, PerThread, Shared, Space, placed
from ptx.syntax import Float, Function, Instruction, Integer, Kernel, Name, Operand, Variable
from ptx.types import DTYPES, WARP, Array, Index, Sink, Source, unsigned

EVERY = slice(None)


class Machine:
    """One block of threads at a time. Registers are arrays over the threads, made when code first names them."""

    def __init__(self, kernel: Kernel, shape: tuple[int, int, int], shared_bytes: int) -> None:
        self.module, self.entry = kernel.module, kernel.function
        self.n_threads = shape[0] * shape[1] * shape[2]
        self.threads = np.arange(self.n_threads)
        self.registers: dict[tuple[str, int, str], Array] = {}
        self.parameters: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()
        self.pc = np.zeros(self.n_threads, np.int64)
        self.return_to = np.zeros((self.n_threads, 32), np.int64)
        self.depth = np.zeros(self.n_threads, np.int64)
        self.random: np.random.Generator | None = None
        self._specials = self._special_registers(shape)
        self._place_variables(shared_bytes)

    def _special_registers(self, shape: tuple[int, int, int]) -> dict[str, Array]:
        u = np.uint32
        numbers = self.threads.astype(u)
        lane = numbers % u(WARP)
        x, y = u(shape[0]), u(shape[1])
        bit = u(1) << lane
        return {
            "%tid.x": numbers % x,
            "%tid.y": numbers // x % y,
            "%tid.z": numbers // (x * y),
            **{f"%ntid.{axis}": np.full(1, size, u) for axis, size in zip("xyz", shape, strict=True)},
            **{f"{name}.{axis}": np.zeros(1, u) for name in ("%ctaid", "%nctaid") for axis in "xyz"},
            "%laneid": lane,
            "%warpid": numbers // u(WARP),
            "%lanemask_eq": bit,
            "%lanemask_lt": bit - u(1),
            "%lanemask_le": bit | (bit - u(1)),
            "%lanemask_gt": ~(bit | (bit - u(1))),
            "%lanemask_ge": ~(bit - u(1)),
            "WARP_SZ": np.full(1, WARP, u),
        }

    def _place_variables(self, shared_bytes: int) -> None:
        scoped = [
            (f.name, i, v)
            for f in self.module.functions.values()
            for i, s in enumerate(f.scopes)
            for v in s.variables.values()
        ]
        scoped += [("", 0, v) for v in self.module.variables.values()]

        def of(space: str) -> list[tuple[str, int, Variable]]:
            return [item for item in scoped if item[2].space == space]

        self.places: dict[tuple[str, int, str], int] = {}

        def put(items: list[tuple[str, int, Variable]], places: list[int]) -> None:
            self.places.update({(f, s, v.name): place for (f, s, v), place in zip(items, places, strict=True)})

        shared, local, const, params = of("shared"), of("local"), of("const"), of("param")
        self.shared = Shared([v for *_, v in shared], [v.size or shared_bytes for *_, v in shared])
        put(shared, self.shared.places)
        spots, end = placed([v for *_, v in local])
        put(local, spots)
        self.local = PerThread(self.n_threads, end, "local")
        spots, end = placed([v for *_, v in params])
        put(params, spots)
        self.function_parameters = PerThread(self.n_threads, end, "parameter")
        spots, end = placed([v for *_, v in const])
        put(const, spots)
        self.const = Memory()
        for (*_, variable), place in zip(const, spots, strict=True):
            data = np.frombuffer(variable.initial.ljust(variable.size, b"\0"), np.uint8)
            self.const.add(data.copy(), place, name=variable.name, read_only=True)

    def begin_launch(
        self, memory: Memory, grid: tuple[int, int, int], arguments: list[bytes], seed: int | None
    ) -> None:
        self.memory = memory
        self.counts.clear()
        self.random = None if seed is None else np.random.default_rng(seed)
        spaces: dict[str, Space] = {"global": memory, "shared": self.shared, "local": self.local, "const": self.const}
        self.parameters = {v.name: data for v, data in zip(self.entry.parameters, arguments, strict=True)}
        parameters = Memory()
        for v, data in zip(self.entry.parameters, arguments, strict=True):
            place = self.places[self.entry.name, 0, v.name]
            parameters.add(np.frombuffer(data, np.uint8).copy(), place, name=v.name, read_only=True)
        spaces["param"] = parameters
        spaces["generic"] = Generic(dict(spaces))
        self.spaces = spaces
        for axis, size in zip("xyz", grid, strict=True):
            self._specials[f"%nctaid.{axis}"][:] = size

    def begin_block(self, place: tuple[int, int, int], start: int) -> None:
        self.place = place
        for axis, number in zip("xyz", place, strict=True):
            self._specials[f"%ctaid.{axis}"][:] = number
        self.shared.begin_block()
        self.local.data[:] = 0xA5
        self.depth[:] = 0
        self.pc[:] = start

    # Operands

    def register(self, function: Function, name: str, scope: int) -> Array | None:
        """The values of a register, as unsigned integers or truth values; None where no such register is declared."""
        found = function.register_type(name, scope)
        if not found:
            return None
        key = (function.name, found[0], name)
        if key not in self.registers:
            dtype = DTYPES[found[1]]
            self.registers[key] = np.zeros(self.n_threads, dtype if dtype.kind == "b" else unsigned(dtype.itemsize))
        return self.registers[key]

    def variable(self, function: Function, name: str, scope: int) -> tuple[str, int | None]:
        """The space of a variable and its address there; of a `.global` one None, as that is the memory's to say."""
        found = function.variable(name, scope)
        if found:
            return found[1].space, self.places[function.name, found[0], name]
        if name not in self.module.variables:
            raise UnsupportedError(f"the name {name}")
        space = self.module.variables[name].space
        return space, None if space == "global" else self.places["", 0, name]

    def source(self, function: Function, instruction: Instruction, operand: Operand, kind: str) -> Source:
        """Reads an operand as a type, for the threads asked for (one value, where it is the same for all)."""
        dtype = DTYPES[kind]
        if isinstance(operand, Integer):
            if dtype.kind == "f":
                return _constant(np.array([operand.value], dtype))
            if dtype.kind == "b":
                return _constant(np.array([operand.value != 0]))
            bits = np.array([operand.value % 2 ** (8 * dtype.itemsize)], unsigned(dtype.itemsize))
            return _constant(bits.view(dtype))
        if isinstance(operand, Float):
            real = np.float64 if dtype.itemsize == 8 else np.float32
            with np.errstate(all="ignore"):
                literal = np.array([operand.value], real)
            return _constant(literal.view(dtype) if dtype.itemsize >= 4 else literal.astype(dtype))
        if not isinstance(operand, Name):
            raise UnsupportedError(f"an operand of {instruction}")
        values = self._specials.get(operand.name)
        if values is not None:
            return _constant(values.view(dtype)) if len(values) == 1 else _view(values.view(dtype))
        values = self.register(function, operand.name, instruction.scope)
        if values is None:
            return self._address(function, instruction, operand, dtype)
        if operand.negated:
            truth = values
            return lambda at: ~truth[at]
        if values.dtype.kind == "b" or values.dtype.itemsize == dtype.itemsize:
            return _view(values.view(dtype))
        if values.dtype.itemsize < dtype.itemsize:
            raise UnsupportedError(f"{operand.name} is narrower than {kind} in {instruction}")
        return _view(values.view(dtype)[:: values.dtype.itemsize // dtype.itemsize])

    def _address(self, function: Function, instruction: Instruction, operand: Name, dtype: np.dtype[Any]) -> Source:
        _, place = self.variable(function, operand.name, instruction.scope)
        if place is not None:
            return _constant(np.array([place + operand.offset], dtype))
        return lambda at: np.array([self.memory.symbol(self.module, operand.name) + operand.offset], dtype)

    def sink(self, function: Function, instruction: Instruction, operand: Operand, kind: str) -> Sink:
        """Writes a register; into one wider than the type with zeros or the sign in front."""
        if not isinstance(operand, Name):
            raise UnsupportedError(f"a result of {instruction}")
        if operand.name == "_":
            return lambda at, values: None
        register = self.register(function, operand.name, instruction.scope)
        dtype = DTYPES[kind]
        if (
            register is None
            or register.dtype.itemsize < dtype.itemsize
            or (register.dtype.kind == "b") != (kind == "pred")
        ):
            raise UnsupportedError(f"the result {operand.name} of {instruction}")
        if register.dtype.itemsize == dtype.itemsize:
            same = register.view(dtype)

            def write(at: Index, values: Array) -> None:
                same[at] = values

            return write
        wider = register.view(f"{'i' if dtype.kind == 'i' else 'u'}{register.dtype.itemsize}")
        bits = dtype if dtype.kind in "iu" else unsigned(dtype.itemsize)

        def extend(at: Index, values: Array) -> None:
            wider[at] = np.ascontiguousarray(values).view(bits)

        return extend

    def window(self, space: str) -> np.uint64:
        """What a generic address has more than one of a space."""
        return np.uint64(WINDOWS[space]) << WINDOW_BITS

    def call_parameter(self, function: Function, operand: Operand, scope: int) -> tuple[int, int]:
        """Place and size of a parameter variable."""
        if isinstance(operand, Name):
            found = function.variable(operand.name, scope)
            if found:
                return self.places[function.name, found[0], operand.name], found[1].size
        raise PtxError(f"not a parameter: {operand}")


def _constant(values: Array) -> Source:
    return lambda at: values


def _view(values: Array) -> Source:
    return lambda at: values[at]
