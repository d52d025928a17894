"""The GPU of this machine, for tests marked cuda."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor

from clr_native import build_info


@cache
def why_no_gpu() -> str:
    """Returns the reason why tests marked cuda cannot run here; empty if they can."""
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return f"needs a GPU, and torch {torch.__version__} is built without CUDA"
        return f"needs a GPU, and torch {torch.__version__} sees none"
    cuda = build_info()["cuda"]
    return "" if cuda["available"] else f"torch sees a GPU, but clr-native cannot use it: {cuda['reason']}"


class Hardware:
    """A twins.Machine by torch's own functions."""

    kind = "cuda"

    def copy(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.kind)

    def cpu(self) -> AbstractContextManager[object]:
        return nullcontext()  # tensors know their device

    def new_stream(self, device: torch.device | None = None) -> torch.cuda.Stream:
        return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types

    def use(self, stream: torch.cuda.Stream | None) -> None:
        wanted = stream or torch.cuda.default_stream()
        wanted.wait_stream(torch.cuda.current_stream())
        torch.cuda.set_stream(wanted)

    @contextmanager
    def capture(self, stream: torch.cuda.Stream) -> Iterator[torch.cuda.CUDAGraph]:
        graph = torch.cuda.CUDAGraph()
        something = torch.zeros((), device=self.kind)
        gc.collect()  # freeing memory of the device during a capture invalidates it
        with torch.cuda.graph(graph, stream=stream):
            something.add_(1)  # torch warns of an empty graph
            yield graph

    def finish(self) -> None:
        torch.cuda.synchronize()

    def replay(self, graph: torch.cuda.CUDAGraph) -> None:
        graph.replay()  # on the current stream

    def keep_busy(self, seconds: float) -> None:
        """Puts work into the current stream that takes about this long, or up to three times as long."""
        torch.cuda._sleep(int(seconds * 2.5e9))  # type: ignore[no-untyped-call]  # torch gives it no types

    def event(self) -> torch.cuda.Event:
        """Returns an event that is reached when the work in the current stream is done."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # as above
        event.record()
        return event

    def is_done(self, event: torch.cuda.Event) -> bool:
        return bool(event.query())  # type: ignore[no-untyped-call]  # as above

    def end(self) -> None:
        """Waits for the work that a test launched, and frees the objects that it made."""
        self.use(None)
        torch.cuda.synchronize()
        gc.collect()
