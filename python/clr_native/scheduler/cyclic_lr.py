"""Cyclical learning rate and momentum for any torch optimizer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler

from clr_native import _core
from clr_native.checks import checked_step
from clr_native.scheduler.arguments import PerGroup, common_schedule, late_group_arguments
from clr_native.scheduler.last_values import LastValues, move_momentum, saved_values
from clr_native.scheduler.own_momenta import found_momenta, give_momenta_back, note_latest, release_momenta
from clr_native.scheduler.own_rates import unchanged_on_error, write_rates
from clr_native.scheduler.torch_attributes import TorchAttributes
from clr_native.schedules import Schedule
from clr_native.schedules.arguments import SCHEDULE_FIELDS
from clr_native.schedules.saved import saved_schedules
from clr_native.schedules.torch_cyclic_lr import torch_cyclic_lr_state
from clr_native.sgd.optimizer import FusedCyclicSGD
from clr_native.shown import ShownGroup, shown, shown_values
from clr_native.torch_groups import (
    as_stored_in,
    equals_stored,
    initial_lr_noted,
    momentum_in,
    momentum_key,
)

T = TypeVar("T")
PerGroupOf: TypeAlias = T | Sequence[T]  # one for all parameter groups, or a list with one for each


class CyclicLR(TorchAttributes, LRScheduler):
    """Cyclical learning rate and momentum for any torch optimizer, in place of ``torch.optim.lr_scheduler.CyclicLR``.

    Each parameter group follows a schedule of this package: :class:`CyclicSchedule`, where the formula stands, of the
    arguments below, or any other by ``schedule=``. Batch number ``n`` (from 0, counted in ``last_epoch``) gets
    ``lr`` and ``momentum`` of the schedule at step ``n``: those of step 0 stand in the groups after construction, and
    ``step()``, called after ``optimizer.step()``, writes the next ones. Momentum goes where torch's puts it: to the
    first of ``group["betas"]`` (Adam and its kin), else to ``group["momentum"]`` (SGD, RMSprop). A tensor that stands
    there is filled in place. Values of all groups are computed and written in one native call.

    Args:
        optimizer: any ``torch.optim.Optimizer`` but ``FusedCyclicSGD``, which has its own schedule.
        base_lr, max_lr, step_size_up, step_size_down, mode, gamma, scale_fn, scale_mode, cycle_momentum, base_momentum,
            max_momentum, window, decay_steps, decay_base: the schedule, see ``CyclicSchedule``. Sizes are in steps
            (batches, not epochs). Each may be a list or tuple with one entry for each parameter group.
        last_epoch: the number of the last batch when training goes on without a state to load: the values of the next
            one are written. -1: from the beginning.
        schedule: a schedule of any kind, or a list of one for each group, in place of the arguments above.

    A group that is added to the optimizer later joins at the next ``step()`` where all groups have the same schedule;
    its dict may bring arguments of its own, and must where the constructor was given lists; they are taken out of it.

    ``load_state_dict`` takes states of this class and of torch's, whose class takes those of this one where it has such
    a schedule. A ``scale_fn`` is not saved: the constructor's is kept. After the end of a ``OneCycleSchedule``
    the last value is held, with one UserWarning.

    The public attributes of torch's class, ``mode`` or ``max_lrs`` and others, are read from the schedules. Where these
    have no such value, or differ in one that torch has once, they raise AttributeError. Lists of bounds may be set: the
    next ``step()`` goes on with them. The keys ``base_momentum`` and ``max_momentum``, which torch's class writes to
    the groups, are not written.

    A derived class may have a ``get_lr()`` of its own. As with torch's class ``step()`` writes the rates that it gives,
    and momentum moves only where it calls ``super().get_lr()`` or writes it itself.

    ``SequentialLR`` may hold it: until its turn comes lr and momentum are the optimizer's own; afterwards momentum
    stays as it was last written. ``ChainedScheduler``, which multiplies rates, is refused: use ``ScheduleSequence``.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: an argument or a value that ``step()`` would write is out of its range, or the optimizer has nothing
            that takes a momentum. In both cases nothing has changed: no group, and not ``last_epoch``.

    >>> import torch
    >>> optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
    >>> scheduler = CyclicLR(optimizer, base_lr=0.1, max_lr=0.5, step_size_up=4)
    >>> for _ in range(4):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> scheduler.get_last_lr(), scheduler.get_last_momentum(), optimizer.param_groups[0]["betas"]
    ([0.5], [0.8], (0.8, 0.999))
    """

    _has_own_get_lr: bool = False
    _epoch: int = -1
    _last: LastValues | None = None  # None: the writer has written the values of _epoch, and returns them.

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._has_own_get_lr = cls.get_lr is not CyclicLR.get_lr or hasattr(cls, "_get_closed_form_lr")

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: PerGroupOf[float] | None = None,
        max_lr: PerGroupOf[float] | None = None,
        step_size_up: PerGroupOf[int] = 2000,
        step_size_down: PerGroupOf[int | None] | None = None,
        mode: PerGroupOf[str] = "triangular",
        gamma: PerGroupOf[float] = 1.0,
        scale_fn: PerGroupOf[Callable[[int], float] | None] | None = None,
        scale_mode: PerGroupOf[str] = "cycle",
        cycle_momentum: PerGroupOf[bool] = True,
        base_momentum: PerGroupOf[float] = 0.8,
        max_momentum: PerGroupOf[float] = 0.9,
        last_epoch: int = -1,
        *,
        window: PerGroupOf[str] = "triangular",
        decay_steps: PerGroupOf[int | None] | None = None,
        decay_base: PerGroupOf[bool] = False,
        schedule: PerGroupOf[Schedule] | None = None,
    ) -> None:
        given = locals()
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer={optimizer!r} must be a torch.optim.Optimizer")
        if isinstance(optimizer, FusedCyclicSGD):
            raise TypeError("optimizer=FusedCyclicSGD has its own schedule: say base_lr=, max_lr= or schedule= there")
        self._check_overridden()
        if last_epoch != -1:
            last_epoch = checked_step(last_epoch)
        self._arguments = PerGroup({name: given[name] for name in SCHEDULE_FIELDS}, schedule)
        self._optimizer = optimizer
        self._schedules = self._arguments.of_groups(len(optimizer.param_groups))
        self._writer, self._momentum_keys = self._writer_of(self._schedules)
        self._own_momenta = found_momenta(optimizer)
        with initial_lr_noted(optimizer), unchanged_on_error(optimizer.param_groups):
            if self._asks_get_lr and last_epoch == -1:
                # As in torch's constructor, get_lr() finds the first values in the groups.
                self._writer.write(optimizer.param_groups, 0)
            super().__init__(optimizer, last_epoch)
        note_latest(optimizer, self)

    def _follow(self, schedules: Sequence[Schedule], epoch: int, write: bool) -> None:
        """Follows these schedules from ``epoch`` on. Raises, with nothing changed, if one cannot be followed."""
        groups = self._optimizer.param_groups
        write = write and epoch != -1
        before, last = dict(self.__dict__), self._last_values()
        writer, keys = self._writer_of(schedules)
        late = range(len(self._own_momenta), len(schedules))
        own = [momentum_in(groups[i]) for i in late]
        try:
            with initial_lr_noted(self._optimizer), unchanged_on_error(groups):
                if write and not self._asks_get_lr:
                    writer.write(groups, epoch)
                else:
                    writer.seek(max(epoch, 0))
                if write:
                    release_momenta(groups, self._own_momenta, self._momentum_keys, keys, last.momenta)
                self._schedules, self._writer, self._momentum_keys = list(schedules), writer, keys
                self._last = None if write else last.extended(writer.last_lr(), writer.last_momentum())
                self._own_momenta = [*self._own_momenta, *own]
                self._epoch = epoch
                if write and self._asks_get_lr:
                    self._write_own_rates(epoch, self.get_lr)
        except BaseException:
            self.__dict__.update(before)
            raise
        for i in late:  # removed: the optimizer's state could not hold a schedule or a function
            for name in late_group_arguments(groups[i], self._optimizer):
                del groups[i][name]

    def _writer_of(self, schedules: Sequence[Schedule]) -> tuple[_core.GroupWriter, list[str | None]]:
        # A copied or unpickled scheduler may find late groups that have not joined.
        groups = zip(self._optimizer.param_groups[: len(schedules)], schedules, strict=True)
        keys = [momentum_key(group, each, self._optimizer, i) for i, (group, each) in enumerate(groups)]
        natives = [each._native for each in schedules]
        return _core.GroupWriter(natives, [each._scale_fns for each in schedules], keys), keys

    # --- the step -------------------------------------------------------------------------------------------------

    def _update_lr(self, epoch: int | None = None) -> None:
        """Writes the values of batch ``epoch``, or of the next. torch's ``step()`` and ``SequentialLR`` call this."""
        step = self._epoch + 1 if epoch is None else checked_step(epoch)
        if self._has_own_get_lr or "get_lr" in self.__dict__:  # _asks_get_lr, without the call
            closed_form = None if epoch is None else getattr(self, "_get_closed_form_lr", None)
            self._write_own_rates(step, closed_form or self.get_lr)
            return
        if not self._writer.write(self._optimizer.param_groups, step):
            self._admit_groups()
            self._writer.write(self._optimizer.param_groups, step)
        self._epoch, self._last = step, None

    @property
    def _asks_get_lr(self) -> bool:
        return self._has_own_get_lr or "get_lr" in self.__dict__

    def _write_own_rates(self, step: int, ask: Callable[[], Any]) -> None:
        """Writes the rates of a user's get_lr(), which moves the momentum itself."""
        self._admit_groups()
        groups = self._optimizer.param_groups
        before = self._epoch, self._last
        self._last = self._last_values()
        try:
            with unchanged_on_error(groups):
                self._epoch, self._get_lr_called_within_step = step, True
                rates = write_rates(groups, ask)
        except BaseException:
            self._epoch, self._last = before
            raise
        finally:
            self._get_lr_called_within_step = False
        self._last = LastValues(rates, self._last_values().momenta, step)

    def _admit_groups(self) -> None:
        """Gives groups that were added to the optimizer their schedules."""
        groups = self._optimizer.param_groups
        count = len(self._schedules)
        if len(groups) < count:
            raise ValueError(f"param_groups has {len(groups)} groups, of {count} that the scheduler was made for")
        if len(groups) == count:
            return
        own = [late_group_arguments(groups[i], self._optimizer) for i in range(count, len(groups))]
        late = [self._arguments.of_late_group(each, i) for i, each in enumerate(own, count)]
        self._follow([*self._schedules, *late], self._epoch, write=False)

    @property
    def last_epoch(self) -> int:
        """The number of the batch whose values were last written, from 0; -1 before the first.

        May be set: the next ``step()`` goes on from there. Back at -1, as ``SequentialLR`` sets it until the
        scheduler's turn has come, the optimizer has its own momentum again.
        """
        return self._epoch

    @last_epoch.setter
    def last_epoch(self, value: int) -> None:
        # Nested SequentialLRs count down more than once.
        value = -1 if isinstance(value, int) and value < 0 else checked_step(value)
        if value == -1 < self._epoch:
            give_momenta_back(self._optimizer.param_groups, self._own_momenta, self._momentum_keys)
        if value != self._epoch:
            self._last = self._last_values()
        self._epoch = value

    def __repr__(self) -> str:
        """The optimizer's class, the position, and a line a group: its schedule and the values last written."""
        if not self._is_constructed():
            return super().__repr__()
        last = self._last_values()
        groups = map(shown_values, self._schedules, last.rates, last.momenta)
        title = f"{type(self).__name__}({type(self._optimizer).__name__}, last_epoch={self._epoch})"
        return shown(title, map(ShownGroup, groups))

    # --- what it says ---------------------------------------------------------------------------------------------

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer whose groups it writes to."""
        if sys._getframe(1).f_code is ChainedScheduler.__init__.__code__:
            raise ValueError(
                "ChainedScheduler multiplies learning rates, which CyclicLR sets: "
                "use schedule=ScheduleSequence(...) or a decaying mode instead"
            )
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedule of each group. May be set to a schedule or a list of them: present values are written anew.

        >>> import torch
        >>> from clr_native import OneCycleSchedule
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], momentum=0.9)
        >>> scheduler = CyclicLR(optimizer, schedule=OneCycleSchedule(0.1, 100))
        >>> scheduler.schedules = scheduler.schedules[0].extended(200)
        >>> scheduler.schedules
        (OneCycleSchedule(0.1, 200, pct_start=0.15),)
        """
        return tuple(self._schedules)

    @schedules.setter
    def schedules(self, schedule: PerGroupOf[Schedule]) -> None:
        arguments = PerGroup({}, schedule)
        self._follow(arguments.of_groups(len(self._optimizer.param_groups)), self._epoch, write=True)
        self._arguments = arguments

    def _change_schedules(self, schedules: list[Schedule]) -> None:
        """Goes on with these schedules at the next step. The present values stay, and then belong to no batch."""
        self._follow(schedules, self._epoch, write=False)
        self._last = self._last_values()._replace(epoch=None)
        self._arguments = PerGroup({}, common_schedule(schedules) or schedules)

    def _is_constructed(self) -> bool:
        return "_epoch" in self.__dict__

    @property
    def _last_lr(self) -> list[float | Tensor]:  # type: ignore[override]  # torch sets it only where we do not use it
        return self.get_last_lr()

    def get_last_lr(self) -> list[float | Tensor]:
        """The learning rate that was last written to each group: a float, or a new tensor where it stands in one."""
        groups = self._optimizer.param_groups
        return [as_stored_in(group["lr"], lr) for group, lr in zip(groups, self._last_values().rates, strict=False)]

    def get_last_momentum(self) -> list[float | None]:
        """The momentum, or beta1, that was last written to each group; None where the schedule has none."""
        return list(self._last_values().momenta)

    def _last_values(self) -> LastValues:
        return self._last or LastValues(self._writer.last_lr(), self._writer.last_momentum(), self._epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each group at ``last_epoch``; momentum at that batch is written, as by torch's.

        Wrappers need both: they call it before each batch, write lr themselves and count ``last_epoch``. After
        ``step()`` the momentum stands there already and nothing changes, so there is no warning, unlike torch's. Before
        the first batch, at -1, the values are those of batch 0.
        """
        self._admit_groups()
        groups = self._optimizer.param_groups
        last = self._last_values()
        rates, momenta = move_momentum(groups, self._schedules, self._momentum_keys, max(self._epoch, 0))
        self._last = last._replace(momenta=momenta)
        return rates

    # --- saving and loading ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain data: position and schedules, and the keys of torch's CyclicLR where that has such schedules."""
        self._admit_groups()
        last = self._last_values()
        groups = self._optimizer.param_groups
        return {
            **torch_cyclic_lr_state(self._schedules),
            "schedules": [schedule._to_dict() for schedule in self._schedules],
            "last_epoch": self._epoch,
            "_step_count": self._step_count,
            "_last_lr": last.rates,
            "_last_momentum": last.momenta,
            # If another scheduler of a SequentialLR, a wrapper or a user has written since, loading must not write.
            "in_charge": last.epoch == self._epoch
            and all(equals_stored(g["lr"], lr) for g, lr in zip(groups, last.rates, strict=True)),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state of this class or of torch's CyclicLR, and write the values of its position to the groups.

        The state's schedules win over the constructor's, but for a ``scale_fn``, which is not saved: the constructor's
        is kept. One of torch's OneCycleLR is taken too, after the optimizer's own state: torch keeps the rates in its
        groups. The caller's dict is not changed. Raises TypeError or ValueError, with nothing changed, if the state
        does not fit: other groups, or a schedule that needs a ``scale_fn`` where there is none.
        """
        missing = [name for name in ("last_epoch", "_step_count") if name not in state_dict]
        if missing:
            raise ValueError(f"state_dict has no {missing[0]!r}: it is not of a CyclicLR")
        epoch = state_dict["last_epoch"]
        if epoch != -1:
            epoch = checked_step(epoch)
        groups = self._optimizer.param_groups
        late = len(groups) - len(self._schedules)
        schedules = saved_schedules(state_dict, [*self._schedules, *[None] * late], groups)
        in_charge = state_dict.get("in_charge", True)
        last = None if in_charge else saved_values(state_dict, len(schedules))
        self._follow(schedules, epoch, write=in_charge)
        if not in_charge:
            self._last = last
        self._arguments.common = common_schedule(schedules)
        self._step_count = state_dict["_step_count"]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_writer"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._writer, self._momentum_keys = self._writer_of(self._schedules)
        self._writer.seek(max(self._epoch, 0))
