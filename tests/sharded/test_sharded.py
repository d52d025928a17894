"""The cases of this folder: functions that all processes of a world call."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from processes import Outcomes, parametrized

pytestmark = pytest.mark.slow

MODULES = [file.stem for file in sorted(Path(__file__).parent.glob("cases_*.py"))]
if find_spec("accelerate") is None:
    MODULES.remove("cases_accelerate")


@parametrized(*MODULES)
def test_in_processes(outcomes: Outcomes, world: int, name: str) -> None:
    outcomes.check(world, name)
