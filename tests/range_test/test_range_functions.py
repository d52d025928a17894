"""What a range test puts back of what losses and steps reach: through methods, closures, globals, or an argument."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from clr_native import FusedCyclicSGD, lr_range_test
from range_helpers import Batch, batches, linear, mse, quick, trial

DATA = batches(dtype=torch.float64)


class Plain:
    calls: int
    total: Tensor

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


TRACKED, SEEN, COUNT = Plain(calls=0, total=torch.zeros(())), [Plain(calls=0)], 0


def helper_with_globals() -> None:
    global COUNT  # what notebooks do
    COUNT += 1
    TRACKED.calls += 1
    TRACKED.total = TRACKED.total + 1.0
    SEEN[0].calls += 1
    SEEN.append(TRACKED)


def step_with_globals(outputs: Tensor, targets: Tensor) -> Tensor:
    helper_with_globals()
    return mse(outputs, targets)


def test_objects_in_globals_are_put_back_and_records_stay() -> None:
    total = TRACKED.total
    SEEN[1:] = []
    before = COUNT
    lr_range_test(linear_model := linear(), SGD(linear_model.parameters(), lr=0.1), step_with_globals, DATA, **quick())
    assert (TRACKED.calls, TRACKED.total is total, SEEN[0].calls) == (0, True, 0)
    assert (COUNT, len(SEEN)) == (before + 6, 7)


def test_of_a_closure_objects_are_put_back_and_records_stay() -> None:
    model, teacher = linear(), linear()
    centre, seen, calls = torch.zeros(2, dtype=torch.float64), [], 0
    other = SGD(teacher.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(other, 2)
    start, start_weight = centre, teacher.weight.tolist()

    def step_fn(batch: Batch, counts: list[int] = []) -> Tensor:  # noqa: B006  # what people write
        nonlocal centre, calls
        calls += 1
        counts.append(calls)
        seen.append(calls)
        loss = mse(teacher(batch[0]), batch[1])
        other.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        other.step()
        scheduler.step()
        outputs = model(batch[0])
        start.add_(1.0)
        centre = 0.9 * centre + 0.1 * outputs.detach().mean(0)
        return mse(outputs - centre, batch[1])

    trial(model, None, DATA, step_fn=step_fn)
    assert centre is start
    assert centre.tolist() == [0.0, 0.0]
    assert teacher.weight.tolist() == start_weight
    assert teacher.weight.grad is None
    assert (scheduler.last_epoch, other.param_groups[0]["lr"], len(other.state)) == (0, 0.1, 0)
    assert (calls, seen) == (6, [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("kind", [FusedCyclicSGD, SGD])
def test_a_second_optimizer_and_scheduler_are_put_back(kind: type[FusedCyclicSGD | SGD]) -> None:
    """Those of train_step are reached by nothing but the argument where it is a callable of another library."""
    model, critic = linear(), linear()
    with torch.no_grad():
        critic.weight.fill_(-0.0)
    second = kind(critic.parameters(), lr=0.1, momentum=0.9) if kind is SGD else kind(critic.parameters(), 0.1, 0.2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(SGD(linear().parameters(), lr=1.0), 0.9)

    class Hidden:
        __slots__ = ()

        @staticmethod
        def __call__(batch: Batch) -> float:
            second.zero_grad()
            loss = mse(critic(batch[0]), batch[1])
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            second.step()
            scheduler.optimizer.step()
            scheduler.step()
            return loss.item()

    before = critic.weight.detach().numpy().tobytes(), second.state_dict(), scheduler.state_dict()
    also = (critic, second, scheduler)
    optimizer = SGD(model.parameters(), lr=0.1)
    lr_range_test(model, optimizer, loader=DATA, train_step=Hidden(), also_restore=also, **quick())
    assert (critic.weight.detach().numpy().tobytes(), second.state_dict(), scheduler.state_dict()) == before


@pytest.mark.parametrize("training", [True, False])
def test_a_loss_module_keeps_mode_and_gradients(training: bool) -> None:
    class Margin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2, dtype=torch.float64)
            self.train(training)

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            self.train(not self.training)
            return mse(self.norm(outputs), targets)

    model, loss = linear(), Margin()
    before = {name: held.clone() for name, held in loss.state_dict().items()}
    trial(model, loss, DATA)
    assert {name: held.tolist() for name, held in loss.state_dict().items()} == {
        k: v.tolist() for k, v in before.items()
    }
    assert loss.training is loss.norm.training is training
    assert loss.norm.weight.grad is None


def test_an_iterator_in_a_variable_is_the_one_that_it_was() -> None:
    model, workers = (
        linear(),
        DataLoader(TensorDataset(DATA[0][0]), batch_size=4, num_workers=1, persistent_workers=True),
    )
    iterator = before = iter(workers)

    def step_fn(batch: Batch) -> Tensor:
        nonlocal iterator
        try:
            (inputs,) = next(iterator)
        except StopIteration:
            iterator = iter(workers)
            (inputs,) = next(iterator)
        return mse(model(batch[0]), batch[1]) + mse(model(inputs), batch[1][:4])

    trial(model, None, DATA, step_fn=step_fn)
    assert iterator is before is workers._iterator
    assert len(list(workers)) == 2
