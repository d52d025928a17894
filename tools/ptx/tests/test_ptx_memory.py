"""Memory of the interpreter: bounds, alignment, spaces, races, and buffers that no machine could hold."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from ptx import Kernel, Memory, MemoryFaultError, PtxError, RaceError, SparseBuffer, launch, parse
from ptx.parser import variable
from ptx.tests.one_instruction import HEAD, kernel

COPY = """ld.param.u64 %d0, [out]; ld.param.u64 %d1, [in]; mov.u32 %r0, %tid.x;
    mul.wide.u32 %d2, %r0, 16; add.s64 %d0, %d0, %d2; add.s64 %d1, %d1, %d2;"""
PARAMETERS = ".param .u64 out, .param .u64 in"


def copying(body: str) -> Kernel:
    return kernel(COPY + body, PARAMETERS)


VECTORS = "ld.global.nc.v4.f32 {%f0, %f1, %f2, %f3}, [%d1]; st.global.v4.f32 [%d0], {%f0, %f1, %f2, %f3};"


def test_vectors_of_all_sizes() -> None:
    for body in (
        VECTORS,
        "ld.global.v2.u64 {%d3, %d4}, [%d1]; st.v2.u64 [%d0], {%d3, %d4};",
        "ld.v4.u16 {%s0, %s1, %s2, %s3}, [%d1]; st.v4.b16 [%d0], {%s0, %s1, %s2, %s3};"
        "ld.v4.u16 {%s0, %s1, %s2, %s3}, [%d1+8]; st.v4.b16 [%d0+8], {%s0, %s1, %s2, %s3};",
        "ld.global.L1::no_allocate.f64 %g0, [%d1]; st.global.f64 [%d0], %g0; ld.u32 %r1, [%d1+8]; st.u32 [%d0+8], %r1;"
        "ld.u8 %s0, [%d1+12]; st.u8 [%d0+12], %s0; ld.u8 %s0, [%d1+13]; st.u8 [%d0+13], %s0; ld.b16 %s1, [%d1+14];"
        "st.b16 [%d0+14], %s1;",
    ):
        memory = Memory()
        data = np.random.default_rng(0).integers(0, 256, 160, dtype=np.uint8)
        out = np.zeros_like(data)
        statistics = launch(copying(body), 1, 10, [memory.add(out), memory.add(data)], memory)
        assert (out == data).all()
        assert statistics.bytes_loaded == statistics.bytes_stored == 160


def test_loads_extend_and_stores_cut() -> None:
    body = """ld.s8 %r1, [%d1]; st.u32 [%d0], %r1; ld.u8 %r2, [%d1]; st.u32 [%d0+4], %r2; ld.s16 %d3, [%d1];
        st.u64 [%d0+8], %d3;"""
    memory = Memory()
    data, out = np.array([0x1234FF81], np.uint32), np.zeros(4, np.uint32)
    launch(copying(body), 1, 1, [memory.add(out), memory.add(data)], memory)
    assert out.tolist() == [0xFFFFFF81, 0x81, 0xFFFFFF81, 0xFFFFFFFF]
    cut = "ld.u64 %d3, [%d1]; st.u16 [%d0], %d3; st.u8 [%d0+2], %d3;"
    launch(copying(cut), 1, 1, [out.ctypes.data, memory.add(np.array([0x99887766554433], np.uint64))], memory)
    assert out[0] == 0xFF334433


@pytest.mark.parametrize(
    ("n", "offset", "text"),
    [
        (
            11,
            0,
            r"address 0x\w+, 16 bytes: outside of all buffers \(behind input.*thread 10 \[line \d+: ld\.global\.nc",
        ),
        (10, 4, r"16 bytes: misaligned, thread 0 \[line \d+: ld\.global\.nc\.v4\.f32"),
        (1, -(2**20), r"outside of all buffers, thread 0"),
    ],
)
def test_loads_out_of_bounds_or_misaligned_are_errors(n: int, offset: int, text: str) -> None:
    memory = Memory()
    place = memory.allocate(160, name="input")
    with pytest.raises(MemoryFaultError, match=text):
        launch(copying(VECTORS), 1, n, [memory.allocate(400), place + offset], memory)


@pytest.mark.parametrize(("kind", "size"), [("u8", 1), ("u16", 2), ("f32", 4), ("f64", 8), ("v2.f32", 8)])
def test_one_element_past_the_end_is_an_error(kind: str, size: int) -> None:
    to = {"u8": "%s0", "u16": "%s0", "f32": "%f0", "f64": "%g0", "v2.f32": "{%f0, %f1}"}[kind]
    body = f"ld.param.u64 %d0, [out]; mov.u32 %r0, %tid.x; mad.wide.u32 %d1, %r0, {size}, %d0; ld.{kind} {to}, [%d1];"
    memory = Memory()
    whole, short = memory.allocate(32 * size), memory.allocate(32 * size - 1)
    launch(kernel(body), 1, 32, [whole], memory)
    for place, n in ((whole, 33), (short, 32)):
        with pytest.raises(MemoryFaultError, match=f"outside of all buffers .* thread {n - 1} "):
            launch(kernel(body), 1, n, [place], memory)


def test_stores_out_of_bounds_to_read_only_or_released_memory_are_errors() -> None:
    memory = Memory()
    place = memory.allocate(160)
    fixed = memory.add(np.zeros(160, np.uint8), name="gradient", read_only=True)
    with pytest.raises(MemoryFaultError, match=r"a store to gradient, which is read-only, thread 0 .*st\.global"):
        launch(copying(VECTORS), 1, 10, [fixed, place], memory)
    short = memory.allocate(150, name="short")
    with pytest.raises(MemoryFaultError, match=r"behind short.*thread 9 .*st\.global"):
        launch(copying(VECTORS), 1, 10, [short, place], memory)
    memory.release(place)
    with pytest.raises(MemoryFaultError, match=r"thread 0 .*ld\.global"):
        launch(copying(VECTORS), 1, 10, [fixed, place], memory)


def test_buffers_may_not_overlap() -> None:
    memory = Memory()
    data = np.zeros(8)
    memory.add(data)
    with pytest.raises(ValueError, match=r"array at address=0x[0-9a-f]+ overlaps array"):
        memory.add(data[1:])
    with pytest.raises(ValueError, match="must be contiguous"):
        memory.add(np.zeros((4, 4))[:, ::2])


def test_many_buffers_in_any_order() -> None:
    """Side by side, with no gap: each is found, none may lie over two, and a place that is free again may be taken."""
    memory, arrays = Memory(), np.arange(4 * 50, dtype=np.uint32).reshape(50, 4)
    places = {int(i): 4096 + 16 * int(i) for i in np.random.default_rng(0).permutation(50)}
    for i, place in places.items():
        memory.add(arrays[i], place)
    assert all(memory.read(place, np.uint32, 4).tolist() == arrays[i].tolist() for i, place in places.items())
    for i in (20, 21, 40):
        memory.release(places[i])
    for begin, size in ((places[20] - 4, 16), (places[21] + 4, 16), (places[40] - 8, 32)):
        with pytest.raises(ValueError, match="overlaps array"):
            memory.add(np.zeros(size, np.uint8), begin)
    assert memory.add(np.full(32, 7, np.uint8), places[20]) == places[20]
    assert memory.read(places[21], np.uint8, 16).tolist() == [7] * 16
    with pytest.raises(ValueError, match="no buffer begins at address=0x"):
        memory.release(places[21])


def test_buffers_past_2_to_the_31_elements_need_no_memory() -> None:
    """Of 2^33 float32 those around 2^31 and 2^32 are changed; what a 32-bit index does instead is out of bounds."""
    body = """ld.param.u64 %d0, [out]; ld.param.u64 %d1, [first]; mov.u32 %r0, %tid.x; cvt.u64.u32 %d2, %r0;
        add.s64 %d2, %d2, %d1; {} shl.b64 %d3, %d2, 2; add.s64 %d0, %d0, %d3; ld.f32 %f0, [%d0];
        add.rn.f32 %f0, %f0, 0f3F800000; st.f32 [%d0], %f0;"""
    for narrowed, moved in (("", True), ("cvt.s64.s32 %d2, %d2;", False)):
        memory = Memory()
        place = memory.allocate_sparse(2**35)
        what = kernel(body.format(narrowed), ".param .u64 out, .param .u64 first")
        for first in (2**31 - 20, 2**32 - 20, 2**33 - 64):
            memory.write(place + 4 * first, np.arange(64, dtype=np.float32))
        if not moved:
            with pytest.raises(MemoryFaultError):
                launch(what, 1, 64, [place, 2**31 - 20], memory)
            continue
        for first in (2**31 - 20, 2**32 - 20, 2**33 - 64):
            launch(what, 1, 64, [place, first], memory)
            assert memory.read(place + 4 * first, np.float32, 64).tolist() == [i + 1 for i in range(64)]
        assert len(cast(SparseBuffer, memory.contents(place)).pages) <= 6


SHARED = ".shared .align 16 .b8 box[256]; .shared .align 4 .u32 other;"
PLACE = "mov.u32 %r0, %tid.x; mov.u32 %r1, box; shl.b32 %r2, %r0, 2; add.u32 %r2, %r2, %r1; xor.b32 %r3, %r2, 128;"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "st.shared.u32 [%r2], %r0; ld.shared.u32 %r4, [%r3];",
            r"warp 0 \(thread 0\) reads what was written by warp 1",
        ),
        ("st.shared.u32 [%r2], %r0; st.shared.u32 [%r3], %r0;", "writes what was written by warp"),
        (
            "st.shared.u32 [%r2], %r0; bar.sync 0; ld.shared.u32 %r4, [%r3]; st.shared.u32 [%r2], %r4;",
            "what was read by warp",
        ),
        (
            "st.shared.u32 [%r2], %r0; bar.sync 0; ld.shared.u32 %r4, [box]; setp.ge.u32 %p0, %r0, 32; "
            "@%p0 st.shared.u32 [box], 5;",
            "what was read by several warps",
        ),
        ("st.shared.u32 [box], 1;", "writes together with warp 1"),
        ("and.b32 %r4, %r0, 32; add.u32 %r4, %r4, %r1; st.shared.u32 [%r4], %r0;", "lanes write different values"),
        (
            "st.shared.u32 [%r2], 0; bar.sync 0; atom.shared.add.u32 %r4, [box], 1; ld.shared.u32 %r5, [box];",
            "reads what was written by",
        ),
        (
            "st.shared.u32 [%r2], 0; bar.sync 0; setp.lt.u32 %p0, %r0, 32; @%p0 ld.shared.u8 %s0, [box+3]; "
            "@!%p0 st.shared.u32 [box], 5;",
            "warp 1 .* writes what was read by warp 0",
        ),
    ],
)
def test_races_of_warps_on_shared_memory_are_errors(body: str, text: str) -> None:
    what = kernel(PLACE + body, outside=SHARED)
    with pytest.raises(RaceError, match=text):
        launch(what, 1, 64, [0], Memory())
    for seed in range(3):
        with pytest.raises((RaceError, MemoryFaultError)):  # a warp that is ahead may find what nobody wrote yet
            launch(what, 1, 64, [0], Memory(), seed=seed)


def test_what_is_no_race() -> None:
    body = """st.shared.u32 [%r2], %r0; xor.b32 %r4, %r2, 64; ld.shared.u32 %r5, [%r4]; bar.sync 0;
        ld.shared.u32 %r5, [%r3]; ld.shared.u32 %r5, [box]; bar.sync 0;
        st.shared.u32 [%r3], %r5; bar.sync 0;
        atom.shared.add.u32 %r5, [box], 1; red.shared.add.u32 [box], 1; bar.sync 0;
        ld.shared.u32 %r4, [box]; ld.param.u64 %d0, [out]; setp.eq.u32 %p0, %r0, 40; @%p0 st.u32 [%d0], %r4;"""
    for seed in (None, 1, 2):
        memory = Memory()
        out = np.zeros(1, np.uint32)
        launch(kernel(PLACE + body, outside=SHARED), 2, 64, [memory.add(out)], memory, seed=seed)
        assert out[0] == 128


def test_shared_memory_that_nobody_wrote_or_that_no_variable_has() -> None:
    """In every block anew."""
    body = PLACE + "mov.u32 %r5, %ctaid.x; setp.eq.u32 %p0, %r5, 0; @%p0 st.shared.u32 [%r2], 1; "
    body += "ld.shared.u32 %r4, [%r2];"
    with pytest.raises(MemoryFaultError, match=r"is read and never written, thread 0 .*block \(1, 0, 0"):
        launch(kernel(body, outside=SHARED), 2, 64, [0], Memory())
    for address in ("%r2+256", "%r2+65536"):
        with pytest.raises(MemoryFaultError, match=r"outside of variables, thread .*st\.shared"):
            launch(kernel(f"{PLACE} st.shared.u32 [{address}], 1;", outside=SHARED), 1, 64, [0], Memory())


def test_dynamic_shared_memory_has_the_size_of_the_launch() -> None:
    what = kernel(PLACE + "st.shared.u32 [%r2], 1;", outside=".extern .shared .align 16 .b8 box[];")
    launch(what, 1, 64, [0], Memory(), shared_bytes=256)
    with pytest.raises(MemoryFaultError, match="thread 63"):
        launch(what, 1, 64, [0], Memory(), shared_bytes=252)


def test_generic_addresses_see_every_space() -> None:
    """Odd threads go to local memory, even ones to shared, through one pointer; constants are read the same way."""
    outside = SHARED + ".const .align 4 .b8 table[12] = {1, 0, 0, 0, 254, 255, 255, 255, 3};"
    body = (
        PLACE
        + """ld.param.u64 %d0, [out]; mad.wide.u32 %d0, %r0, 4, %d0; mov.u64 %d1, depot;
        cvta.local.u64 %d1, %d1; cvt.u64.u32 %d2, %r2; cvta.shared.u64 %d2, %d2; and.b32 %r4, %r0, 1;
        setp.eq.u32 %p0, %r4, 1;
        selp.b64 %d3, %d1, %d2, %p0; st.u32 [%d3], %r0; ld.u32 %r5, [%d3]; cvta.to.local.u64 %d4, %d3;
        @%p0 ld.local.u32 %r6, [%d4]; @!%p0 ld.shared.u32 %r6, [%r2]; mov.u64 %d5, table; cvta.const.u64 %d5, %d5;
        ld.s32 %r7, [%d5+4]; ld.const.u8 %s0, [table+8]; cvt.u32.u16 %r8, %s0; mul.lo.u32 %r5, %r5, %r6;
        add.u32 %r5, %r5, %r7; add.u32 %r5, %r5, %r8; st.u32 [%d0], %r5;"""
    )
    memory = Memory()
    out = np.zeros(64, np.uint32)
    launch(kernel(body, registers=".local .align 8 .b8 depot[8];", outside=outside), 1, 64, [memory.add(out)], memory)
    assert out.tolist() == [i * i - 2 + 3 for i in range(64)]
    past = "mov.u64 %d1, depot; st.local.u64 [%d1+8], %d1;"
    with pytest.raises(MemoryFaultError, match="local address"):
        launch(kernel(past.replace("+8", "+640"), registers=".local .align 8 .b8 depot[8];"), 1, 1, [0], memory)


def test_variables_of_a_module_stay_between_launches() -> None:
    what = kernel(
        "mov.u64 %d1, count; atom.global.add.u32 %r1, [%d1], 1; mov.u64 %d2, start; ld.global.f64 %g0, [%d2];",
        outside=".global .align 4 .u32 count = 5; .visible .global .align 8 .f64 start = 0d3FF8000000000000;",
    )
    memory = Memory()
    for _ in range(2):
        launch(what, 1, 32, [0], memory)
    assert memory.read(memory.symbol(what.module, "count"), np.uint32, 1) == 5 + 64
    assert memory.read(memory.symbol(what.module, "start"), np.float64, 1) == 1.5
    launch(what, 1, 1, [0], other := Memory())
    assert other.read(other.symbol(what.module, "count"), np.uint32, 1) == 6


def test_parts_of_registers() -> None:
    body = """ld.v2.u32 {%r1, %r2}, [%d1]; mov.b64 %d3, {%r2, %r1}; mov.b32 {%s0, %s1}, %r1; mov.b32 %r3, {%s1, %s0};
        mov.b64 {%r4, _}, %d3; st.u64 [%d0], %d3; st.v2.u32 [%d0+8], {%r3, %r4};"""
    memory = Memory()
    data, out = np.array([0x11112222, 0x33334444], np.uint32), np.zeros(4, np.uint32)
    launch(copying(body), 1, 1, [memory.add(out), memory.add(data)], memory)
    assert out.tolist() == [0x33334444, 0x11112222, 0x22221111, 0x33334444]


def test_declarations() -> None:
    for text, size, alignment in (
        (".param .u64 .ptr .global .align 16 p", 8, 8),
        (".param .align 8 .b8 s[40]", 40, 8),
        (".shared .align 4 .f32 t[7]", 28, 4),
        (".extern .shared .align 16 .b8 dynamic[]", 0, 16),
    ):
        declared = variable(text)
        assert (declared.size, declared.alignment) == (size, alignment)
    module = parse(
        f"{HEAD}.visible .entry k(.param .u32 a)\n.maxntid 128, 2, 1\n.minnctapersm 2\n{{\n.loc 1 2 3\nret;\n}}\n"
    )
    assert module.kernels["k"].function.max_threads == 256
    with pytest.raises(PtxError, match=r"line 4: 'what is this"):
        parse(HEAD + "what is this;")
