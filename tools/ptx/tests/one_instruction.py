"""Kernels of a few lines, written as PTX."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ptx import Kernel, Memory, launch, parse

HEAD = ".version 9.0\n.target sm_90\n.address_size 64\n"


def bits(kind: str) -> int:
    return 8 if kind == "pred" else int(kind.lstrip("bfsu").split("x")[0]) * (2 if "x" in kind else 1)


def kernel(body: str, parameters: str = ".param .u64 out", registers: str = "", outside: str = "") -> Kernel:
    """`body` may use %p0-9, %s0-9 (16 bits), %r0-19, %d0-19 (64 bits), %f0-9 (float32) and %g0-9 (float64)."""
    declared = (
        ".reg .pred %p<10>; .reg .b16 %s<10>; .reg .b32 %r<20>; .reg .b64 %d<20>; .reg .f32 %f<10>; .reg .f64 %g<10>;"
    )
    text = f"{HEAD}{outside}\n.visible .entry main({parameters})\n{{\n{declared} {registers}\n{body}\nret;\n}}\n"
    return parse(text).kernels["main"]


def results(opcode: str, kinds: list[str], inputs: list[npt.NDArray[Any]], more: str = "") -> npt.NDArray[Any]:
    """Of one instruction: `kinds` are the types of its result and operands, `more` what follows them in the text.

    The result is as it comes out of the register, an unsigned integer of the size of its type."""
    n = len(inputs[0])
    parameters = ", ".join([".param .u64 out", *(f".param .u64 in{i}" for i in range(len(inputs)))])
    body = ["mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mad.lo.s32 %r0, %r1, 256, %r0;"]
    body += [f"setp.ge.u32 %p0, %r0, {n}; @%p0 bra END;"]
    declared = []
    for i, kind in enumerate(kinds):
        size = bits(kind)
        declared.append(f".reg .{'pred' if kind == 'pred' else f'b{size}'} %x{i};" if size > 8 else f".reg .b16 %x{i};")
        body.append(f"ld.param.u64 %d{i}, [{'out' if i == 0 else f'in{i - 1}'}];")
        body.append(f"mul.wide.u32 %d10, %r0, {size // 8}; add.s64 %d{i}, %d{i}, %d10;")
        if i and kind == "pred":
            body.append(f"ld.u8 %s0, [%d{i}]; setp.ne.s16 %x{i}, %s0, 0;")
        elif i:
            body.append(f"ld.b{size} %x{i}, [%d{i}];")
    declared = [d.replace(".b16 %x", ".pred %x") if kinds[i] == "pred" else d for i, d in enumerate(declared)]
    body.append(f"{opcode} {', '.join(f'%x{i}' for i in range(len(kinds)))}{more};")
    body.append(
        "selp.u16 %s0, 1, 0, %x0; st.u8 [%d0], %s0;" if kinds[0] == "pred" else f"st.b{bits(kinds[0])} [%d0], %x0;"
    )
    body.append("END:")
    memory = Memory()
    out = np.zeros(n, f"u{bits(kinds[0]) // 8}")
    arguments = [memory.add(out), *(memory.add(np.array(x), read_only=True) for x in inputs)]
    launch(kernel("\n".join(body), parameters, " ".join(declared)), -(-n // 256), 256, arguments, memory)
    return out
