"""Two gloo processes return what one returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import output_of, python_process

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this torch was built without gloo", allow_module_level=True)

# What every process runs; `part` gives a rank's share of a batch.
CODE = """
import datetime, json, math, os, torch
from torch import distributed
from clr_native import FusedCyclicSGD, lr_range_test
from range_helpers import batches, mse

torch.set_num_threads(1)
rank, ranks, store, share = {rank}, {ranks}, {store!r}, {share!r}
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()
optimizer = FusedCyclicSGD(model.parameters(), base_lr=0.01, max_lr=0.1)
trained = model
if ranks > 1:
    limit = datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks, timeout=limit)
    trained = torch.nn.parallel.DistributedDataParallel(model)

def part(tensor):
    return tensor if share == "whole" else tensor.chunk(ranks)[rank]

data = [(part(x), part(y)) for x, y in batches(5, 8, dtype=torch.float64)]
calls = 0

def loss_fn(outputs, targets):
    global calls
    calls += 1
    spoilt = share == "whole" and {spoil} and calls == 9 and rank == ranks - 1
    return mse(outputs, targets) * (math.nan if spoilt else 1.0)

before = [p.tolist() for p in model.parameters()]
result = lr_range_test(trained, optimizer, loss_fn, data, start_lr=1e-3, end_lr=10.0, num_steps=40,
                       metric=lambda o, t: -float(mse(o, t)))
assert [p.tolist() for p in model.parameters()] == before
print(json.dumps(result.to_dict()), flush=True)
if ranks > 1:
    distributed.barrier()
    os._exit(0)  # gloo's threads sometimes end in std::terminate when a group is taken down while its peer leaves
"""


def results(ranks: int, share: str, folder: Path, *, spoil: bool = False) -> list[dict[str, Any]]:
    """Of every rank."""
    store = (folder / f"store-{ranks}-{share}-{spoil}").as_uri()
    processes = [
        python_process(
            CODE.format(rank=rank, ranks=ranks, store=store, share=share, spoil=spoil),
            GLOO_SOCKET_IFNAME="lo",
            PYTHONWARNINGS="ignore",
        )
        for rank in range(ranks)
    ]
    try:
        return [json.loads(output_of(process).splitlines()[-1]) for process in processes]  # gloo may speak before
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_two_processes_with_the_same_data_return_what_one_returns(tmp_path: Path) -> None:
    """To the bit: the mean of two equal numbers is that number."""
    (alone,) = results(1, "whole", tmp_path)
    first, second = results(2, "whole", tmp_path)
    assert first == second == alone
    assert len(alone["lr"]) > 20


@pytest.mark.slow
def test_two_processes_with_half_of_each_batch_return_what_one_returns(tmp_path: Path) -> None:
    """Up to the order of sums, which forty steps of training carry on."""
    (alone,) = results(1, "whole", tmp_path)
    first, second = results(2, "half", tmp_path)
    assert first == second
    assert first["stopped"].split(" at step")[1] == alone["stopped"].split(" at step")[1]
    assert first["lr"] == alone["lr"]
    for name in ("losses", "metrics"):
        assert first[name][0] == pytest.approx(alone[name][0], rel=1e-9)
        assert first[name] != alone[name]  # or the halves were not halves


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_ends_it_on_all(tmp_path: Path) -> None:
    first, second = results(2, "whole", tmp_path, spoil=True)
    assert first == second
    assert len(first["lr"]) == 8
    assert first["stopped"].startswith("loss=nan is not finite at step 8")
