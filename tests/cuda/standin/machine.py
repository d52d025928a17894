"""The stand-in as tests marked cuda see a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor

from standin.exchange import Exchange
from standin.gpu import Gpu
from standin.objects import Graph


class StandIn:
    """twins.Machine. All of its GPU is its device 0."""

    def __init__(self, gpu: Gpu, exchange: Exchange) -> None:
        self.gpu, self.exchange = gpu, exchange
        self.kind = exchange.kind
        self.stream = 0

    def copy(self, tensor: Tensor) -> Tensor:
        return self.exchange.copy(tensor)

    def cpu(self) -> AbstractContextManager[object]:
        return self.exchange.cpu()

    def new_stream(self) -> int:
        return self.gpu.new_stream()

    def use(self, stream: int | None) -> None:
        self.stream = stream or 0
        self.exchange.set_stream(0, self.stream)

    @contextmanager
    def capture(self, stream: int) -> Iterator[Graph]:
        self.exchange.set_stream(0, stream)
        try:
            with self.gpu.capture(stream) as graph:
                yield graph
        finally:
            self.exchange.set_stream(0, self.stream)

    def finish(self) -> None:
        self.gpu.finish()

    def replay(self, graph: Graph) -> None:
        self.gpu.replay(graph, self.stream)
