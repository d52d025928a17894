"""Threads of the interpreter: branches, calls, barriers, warps, atomics, blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ptx import DeadlockError, Kernel, Memory, PtxError, Statistics, launch
from ptx.tests.one_instruction import kernel

OUT = "ld.param.u64 %d0, [out]; mov.u32 %r0, %tid.x; mad.wide.u32 %d1, %r0, 4, %d0;"
STORE = "st.global.u32 [%d1], %r9;"


def run(what: Kernel, n: int = 64, grid: int = 1, seed: int | None = None) -> tuple[list[int], Statistics]:
    memory = Memory()
    out = np.zeros(max(n, 64), np.uint32)
    statistics = launch(what, grid, n, [memory.add(out)], memory, seed=seed, limit=20000)
    return out.tolist(), statistics


def test_each_thread_goes_its_own_way_and_all_meet_again() -> None:
    """Thread i goes round a loop i times; what follows is executed once, by all at once."""
    what = kernel(f"""{OUT} mov.u32 %r9, 0; mov.u32 %r1, %r0;
        LOOP: setp.eq.u32 %p0, %r1, 0; @%p0 bra DONE;
        add.u32 %r9, %r9, %r1; sub.u32 %r1, %r1, 1; bra.uni LOOP;
        DONE: activemask.b32 %r2; popc.b32 %r3, %r2; shl.b32 %r3, %r3, 16; or.b32 %r9, %r9, %r3; {STORE}""")
    out, statistics = run(what)
    assert out == [i * (i + 1) // 2 | 32 << 16 for i in range(64)]
    assert statistics.instructions["sub.u32"] == 63 * 64 // 2
    assert statistics.instructions["bra"] == 64
    assert statistics.instructions["st.global.u32"] == 64


@pytest.mark.parametrize(("resident", "seed"), [(1, None), (2, None), (3, None), (3, 5)])
def test_blocks_that_are_there_take_turns_from_barrier_to_barrier(resident: int, seed: int | None) -> None:
    """Each block draws numbers below 12 and writes its own in their places."""
    what = kernel("""ld.param.u64 %d0, [out]; mov.u32 %r0, %ctaid.x;
        LOOP: atom.global.add.u32 %r1, [%d0], 1; setp.ge.u32 %p0, %r1, 12; @%p0 bra DONE;
        mad.wide.u32 %d1, %r1, 4, %d0; st.global.u32 [%d1+4], %r0; bar.sync 0; bra.uni LOOP;
        DONE:""")
    memory, out = Memory(), np.zeros(64, np.uint32)
    statistics = launch(what, 3, 1, [memory.add(out)], memory, resident=resident, seed=seed)
    drawn = out[1:13].tolist()
    assert (out[0], statistics.blocks, statistics.barriers) == (12 + 3, 3, 12)
    if seed is None:
        assert drawn == [i % resident for i in range(12)]
    else:
        assert set(drawn) == {0, 1, 2}
        assert drawn != [i % resident for i in range(12)]


def test_only_threads_whose_guard_holds_execute_an_instruction() -> None:
    body = "mov.u32 %r9, 7; setp.lt.u32 %p0, %r0, 10; @%p0 add.u32 %r9, %r9, 1; @!%p0 mov.u32 %r9, 3;"
    what = kernel(OUT + body + STORE)
    out, statistics = run(what)
    assert out == [8] * 10 + [3] * 54
    assert (statistics.instructions["add.u32"], statistics.instructions["mov.u32"]) == (10, 64 + 64 + 54)


def test_a_branch_by_index() -> None:
    body = f"""{OUT} and.b32 %r1, %r0, 3;
        TABLE: .branchtargets A, B, A;
        setp.eq.u32 %p0, %r1, 3; @%p0 bra END; brx.idx %r1, TABLE;
        A: mov.u32 %r9, 1; {STORE} bra END;
        B: mov.u32 %r9, 2; {STORE}
        END:"""
    assert run(kernel(body))[0] == [1, 2, 1, 0] * 16
    with pytest.raises(PtxError, match=r"branch index 3 of 3 .*brx\.idx"):
        run(kernel(body.replace("@%p0 bra END;", "")))


CALLED = """.func (.param .b32 result) twice(.param .b32 x, .param .align 4 .b8 y[8]) {
    .reg .b32 %r<9>; .reg .b64 %d<3>; .local .align 8 .b8 depot[16]; .reg .pred %p<3>;
    ld.param.u32 %r1, [x]; ld.param.u32 %r2, [y+4]; mov.u64 %d1, depot;
    st.local.u32 [%d1+4], %r1; ld.local.u32 %r3, [%d1+4];
    setp.gt.u32 %p1, %r3, 40; @%p1 bra MORE;
    add.u32 %r4, %r3, %r2; st.param.b32 [result], %r4; ret;
    MORE: mov.u32 %r4, 5; st.param.b32 [result], %r4; ret; }"""


def test_calls_pass_values_and_structs_and_return_to_each_caller() -> None:
    call = """{ .param .b32 a; st.param.b32 [a], %r0; .param .align 4 .b8 b[8]; st.param.b32 [b+4], %r2;
        .param .b32 back; call.uni (back), twice, (a, b); ld.param.b32 %r9, [back]; }"""
    body = f"""{OUT} mov.u32 %r9, 0; setp.lt.u32 %p0, %r0, 20; mov.u32 %r2, 100; @%p0 bra LOW;
        {call} bra END; LOW: mov.u32 %r2, 1000; {call} END: {STORE}"""
    want = [i + 1000 if i < 20 else i + 100 if i <= 40 else 5 for i in range(64)]
    assert run(kernel(body, outside=CALLED))[0] == want
    meeting = f"{OUT} mov.u32 %r2, 0; {call} activemask.b32 %r3; popc.b32 %r9, %r3; {STORE}"
    assert run(kernel(meeting, outside=CALLED))[0] == [32] * 64


def test_a_barrier_shows_what_others_wrote() -> None:
    shared = ".shared .align 4 .b8 box[256];"
    body = f"""{OUT} mov.u32 %r1, box; shl.b32 %r2, %r0, 2; add.u32 %r2, %r2, %r1; st.shared.u32 [%r2], %r0;
        bar.sync 0; sub.u32 %r3, 63, %r0; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r1;
        ld.shared.u32 %r9, [%r3]; {STORE}"""
    for seed in (None, 0, 1, 2):
        out, statistics = run(kernel(body, outside=shared), seed=seed)
        assert out == [63 - i for i in range(64)]
        assert statistics.barriers == 1


def test_a_seed_lets_some_warps_run_ahead_of_others() -> None:
    """Two tickets a thread. Without a seed all take the first before any takes the second."""
    ticket = "atom.global.add.u32 %r1, [%d0], 1; atom.global.add.u32 %r2, [%d0], 1; st.v2.u32 [%d1+8], {%r1, %r2};"
    what = kernel(f"ld.param.u64 %d0, [out]; mov.u32 %r0, %tid.x; mad.wide.u32 %d1, %r0, 8, %d0; {ticket}")
    ahead = set()
    for seed in (None, *range(8)):
        memory = Memory()
        out = np.zeros((65, 2), np.uint32)
        launch(what, 1, 64, [memory.add(out)], memory, seed=seed)
        first, second = out[1:33], out[33:]
        ahead.add(1 if first.max() < second.min() else 2 if second.max() < first.min() else 0)
        assert seed is not None or ahead == {0}
    assert ahead == {0, 1, 2}


def test_threads_that_have_ended_do_not_hold_up_a_barrier() -> None:
    what = kernel(f"{OUT} setp.ge.u32 %p0, %r0, 40; @%p0 ret; bar.sync 0; mov.u32 %r9, 1; {STORE}")
    assert run(what)[0] == [1] * 40 + [0] * 24


TWO_BARRIERS = "@%p0 bra END; bar.sync 0; END: bar.sync 1;"
BARRIER_AND_SHUFFLE = "@%p0 bra W; bar.sync 0; bra END; W: shfl.sync.idx.b32 %r9, %r0, 0, 31, -1; END:"


@pytest.mark.parametrize(
    ("branch", "text"),
    [
        (TWO_BARRIERS, r"24 threads .*bar\.sync 0; 40 threads \(first 0\) at line \d+: bar\.sync 1"),
        (BARRIER_AND_SHUFFLE, r"shfl.*others will not come"),
    ],
)
def test_threads_that_wait_for_each_other_are_an_error(branch: str, text: str) -> None:
    with pytest.raises(DeadlockError, match=text):
        run(kernel(f"{OUT} setp.lt.u32 %p0, %r0, 40; {branch} {STORE}"))


def test_a_loop_without_end_is_an_error() -> None:
    with pytest.raises(PtxError, match="does not end: thread 0 at line"):
        run(kernel("LOOP: add.u32 %r0, %r0, 1; bra LOOP;"))


SHUFFLES: dict[str, tuple[str, str, Callable[[int], int]]] = {
    "up": ("3", "0", lambda lane: lane - 3 if lane >= 3 else lane),
    "down": ("5", "31", lambda lane: lane + 5 if lane + 5 < 32 else lane),
    "bfly": ("6", "31", lambda lane: lane ^ 6),
    "idx": ("%r0", "31", lambda lane: lane),
    "idx ": ("9", "6175", lambda lane: lane & 24 | 1),  # in segments of 8: 6175 = 24 << 8 | 31
    "down ": ("2", "6151", lambda lane: lane + 2 if lane % 8 < 6 else lane),  # 6151 = 24 << 8 | 7
}


@pytest.mark.parametrize("mode", SHUFFLES)
def test_shuffles(mode: str) -> None:
    step, limits, source = SHUFFLES[mode]
    body = f"{OUT} add.u32 %r1, %r0, 100; shfl.sync.{mode.strip()}.b32 %r9|%p0, %r1, {step}, {limits}, -1;"
    body += "selp.b32 %r2, 65536, 0, %p0; or.b32 %r9, %r9, %r2;"
    out, _ = run(kernel(body + STORE))
    lanes = [i % 32 for i in range(64)]
    assert [x & 0xFFFF for x in out] == [i - lane + source(lane) + 100 for i, lane in enumerate(lanes)]
    past_the_end = {"up": (0, 1, 2), "down": range(27, 32), "down ": (6, 7, 14, 15, 22, 23, 30, 31)}.get(mode, ())
    assert [x >> 16 for x in out] == [0 if lane in past_the_end else 1 for lane in lanes]


def test_lanes_that_come_late_are_waited_for() -> None:
    """Lane 0 gets to the one shuffle of the warp after a detour, behind it in the text."""
    body = f"""{OUT} mov.u32 %r1, 1; and.b32 %r2, %r0, 31; setp.eq.u32 %p0, %r2, 0; @%p0 bra DETOUR;
        ALL: shfl.sync.bfly.b32 %r9, %r1, 1, 31, -1; {STORE} ret;
        DETOUR: mov.u32 %r1, 2; bra ALL;"""
    for seed in (None, 0, 1):
        assert run(kernel(body), seed=seed)[0] == ([1, 2] + [1] * 30) * 2


def test_votes_and_reductions_are_of_one_warp_and_mask() -> None:
    body = f"""{OUT} setp.eq.u32 %p0, %r0, 37; vote.sync.any.pred %p1, %p0, -1; selp.b32 %r9, 1, 0, %p1;
        vote.sync.all.pred %p2, %p0, -1; @%p2 add.u32 %r9, %r9, 2; setp.ge.u32 %p3, %r0, 30;
        vote.sync.ballot.b32 %r1, %p3, -1; clz.b32 %r2, %r1; shl.b32 %r2, %r2, 4; or.b32 %r9, %r9, %r2;
        redux.sync.max.u32 %r3, %r0, -1; shl.b32 %r3, %r3, 8; or.b32 %r9, %r9, %r3; {STORE}"""
    assert run(kernel(body))[0] == [31 << 8] * 32 + [63 << 8 | 1] * 32
    halves = f"""{OUT} and.b32 %r1, %r0, 16; shl.b32 %r2, 65535, %r1; redux.sync.add.u32 %r9, %r0, %r2; {STORE}"""
    assert run(kernel(halves))[0] == [sum(range(i // 16 * 16, i // 16 * 16 + 16)) for i in range(64)]


def test_a_lane_must_be_named_and_a_source_take_part() -> None:
    with pytest.raises(PtxError, match="the mask does not name"):
        run(kernel("shfl.sync.idx.b32 %r9, %r0, 0, 31, 1;"))
    with pytest.raises(PtxError, match="from lane 0, which does not take part"):
        run(kernel("mov.u32 %r0, %tid.x; setp.eq.u32 %p0, %r0, 0; @%p0 ret; shfl.sync.idx.b32 %r9, %r0, 0, 31, -1;"))


ATOMICS = {
    "add.u32": (5, 5 + sum(range(64))),
    "inc.u32": (70, 134),
    "min.s32": (-3 % 2**32, -3 % 2**32),
    "max.s32": (-3 % 2**32, 63),
    "or.b32": (64, 127),
    "and.b32": (0xFF, 0),
    "xor.b32": (9, 9),
}


@pytest.mark.parametrize("name", ATOMICS)
@pytest.mark.parametrize("form", ["atom", "red"])
def test_atomics_leave_the_same_in_any_order(name: str, form: str) -> None:
    before, after = ATOMICS[name]
    value = "1000" if name.startswith("inc") else "%r0"
    old = "%r9, " if form == "atom" else ""
    what = kernel(f"ld.param.u64 %d0, [out]; mov.u32 %r0, %tid.x; {form}.global.{name} {old}[%d0], {value};")
    for seed in (None, 1):
        memory = Memory()
        cell = np.array([before], np.uint32)
        launch(what, 1, 64, [memory.add(cell)], memory, seed=seed)
        assert cell[0] == after


def test_a_ticket_and_a_compare_and_swap() -> None:
    """Each ticket is given once, the last wraps round; of all threads one finds what it expects."""
    body = f"{OUT} add.u64 %d2, %d0, 1000; atom.global.inc.u32 %r9, [%d2], 63; {STORE}"
    body += "atom.global.cas.b32 %r3, [%d2+4], 0, 77; setp.ne.u32 %p0, %r3, 0; @%p0 bra END;"
    body += "add.u32 %r9, %r9, 1000; st.global.u32 [%d1], %r9; END:"
    what = kernel(body)
    memory = Memory()
    out = np.zeros(252, np.uint32)
    launch(what, 1, 64, [memory.add(out)], memory, seed=4)
    assert sorted(out[:64] % 1000) == list(range(64))
    assert out[250] == 0
    assert out[251] == 77
    assert (out[:64] >= 1000).sum() == 1


def test_blocks_run_in_the_order_given_and_know_their_place() -> None:
    body = """ld.param.u64 %d0, [out]; atom.global.add.u32 %r9, [%d0], 1; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ctaid.y;
        mov.u32 %r3, %nctaid.x; mad.lo.u32 %r1, %r2, %r3, %r1; mad.wide.u32 %d1, %r1, 4, %d0;
        st.global.u32 [%d1+4], %r9;"""
    what = kernel(body)
    memory = Memory()
    out = np.full(7, 99, np.uint32)
    out[0] = 0
    statistics = launch(what, (3, 2), 1, [memory.add(out)], memory, blocks=[5, 0, 3])
    assert out.tolist() == [3, 1, 99, 99, 2, 99, 0]
    assert statistics.blocks == 3


def test_arguments_that_do_not_fit_are_errors() -> None:
    what = kernel("ret;")
    with pytest.raises(ValueError, match="block=2000 must have 1 to 1024 threads"):
        launch(what, 1, 2000, [0], Memory())
    with pytest.raises(ValueError, match="2 given, 1 parameters"):
        launch(what, 1, 1, [0, 0], Memory())
    with pytest.raises(ValueError, match=r"out=b'\\x00' must have 8 bytes, has 1"):
        launch(what, 1, 1, [b"\0"], Memory())
    with pytest.raises(ValueError, match="blocks: 1 is not below 1"):
        launch(what, 1, 1, [0], Memory(), blocks=[1])
