"""What a CUDA graph needs of an optimizer lives as long as the graph, which tells of its replays: torch 2.14 and later.

Earlier versions of torch tell nothing. Their users keep what a graph needs, and optimizers ask the device what has run.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import Any

from torch.cuda import graphs

from clr_native import _core


class _Capture(threading.local):
    """The graph that this thread is capturing, if torch has told of it, and the optimizers with steps in it."""

    graph: weakref.ref[Any] | None = None
    members: weakref.WeakSet[_core.NativeOptimizer]


_here = _Capture()
_watched = False


def _begin(graph: Any) -> None:
    _here.graph, _here.members = weakref.ref(graph), weakref.WeakSet()


def _end(graph: Any) -> None:
    _here.graph = None


def watch() -> None:
    """Makes torch tell of all captures that begin from now on."""
    global _watched
    torch_graphs: Any = graphs  # torch 2.13 does not know these names
    if not _watched and hasattr(graphs, "register_graph_capture_start_hook"):
        torch_graphs.register_graph_capture_start_hook(_begin)
        torch_graphs.register_graph_capture_end_hook(_end)
        _watched = True


def note_recorded(native: _core.NativeOptimizer, needed: Iterable[object]) -> None:
    """Call this after a step has become part of a graph, with the tensors that it uses."""
    graph = None if _here.graph is None else _here.graph()
    native.expect_replays(graph is not None)
    if graph is None or native in _here.members:
        return
    _here.members.add(native)
    # When the graph goes, torch waits for its replays first: the tables on the device go with `native`.
    graph.retain_object((native, list(needed)), synchronize_before_release=True)
    handle = graph.register_replay_end_hook(lambda _: native.note_replay())
    graph.register_destroy_callback(handle.remove)  # it may be captured anew, without this optimizer
