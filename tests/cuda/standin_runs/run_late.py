"""What the host knows while the device has not done its work, and after."""

from __future__ import annotations

from clr_native import FusedCyclicSGD
from standin.exchange import Exchange
from standin.gpu import Gpu
from twins import Twins


def test_a_device_that_runs_late(gpu: Gpu, exchange: Exchange) -> None:
    """Nothing is done before it is waited for: memory that the host used again too early would be seen."""
    gpu.lazy = True
    twins = Twins(exchange, ema_decay=0.5)
    for lr in (None, 0.25, None, 0.125, 0.5):  # each by hand is another copy
        if lr is not None:
            for optimizer in (twins.here, twins.there):
                optimizer.param_groups[0]["lr"] = lr
        for parameter in twins.on_gpu:
            parameter.grad = None  # the next lies elsewhere
        twins.give()
        twins.both(FusedCyclicSGD.step)
        twins.assert_same_groups()
    twins.assert_same()


def test_the_host_learns_of_a_skip_at_the_next_step(gpu: Gpu, exchange: Exchange) -> None:
    twins = Twins(exchange)
    twins.step()
    twins.step(grad_scale=2.0, found_inf=1.0)
    assert [group["applied_steps"] for group in twins.there.param_groups] == [2, 2]  # taken for applied
    gpu.log.clear()
    twins.step()
    assert len(gpu.calls("cuStreamSynchronize")) == 1
    twins.assert_same_groups()
    gpu.log.clear()
    twins.step()
    assert gpu.calls("cuStreamSynchronize") == []
    twins.assert_same()
