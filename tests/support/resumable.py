"""A program that trains shards, saves as it goes, and goes on where it was if it is started again.

    python -m resumable FOLDER STEPS KILLED_AT

Each process ends by SIGKILL behind step KILLED_AT, the first time it comes there. In the end all of them print weights,
and then those of a run that was never interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.checkpoint import state_dict as helpers_of_torch
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import fully_shard

from clr_native import FusedCyclicSGD
from shards import SCHEDULE, model, whole

RULES: dict[str, Any] = {"max_grad_norm": 0.05, "skip_nonfinite": True, "ema_decay": 0.9, "weight_decay": 0.01}
EVERY = 5  # steps between two checkpoints


def step(network: nn.Module, optimizer: FusedCyclicSGD) -> None:
    """With data that depend on the number of the update alone."""
    data = torch.randn(6, 5, generator=torch.Generator().manual_seed(optimizer.applied_steps))
    optimizer.zero_grad()
    torch.autograd.backward((network(data) ** 2).mean())
    optimizer.step()


def made() -> tuple[nn.Module, FusedCyclicSGD]:
    network = model()
    if distributed.is_initialized():
        fully_shard(network)
    return network, FusedCyclicSGD(network.parameters(), **SCHEDULE, **RULES)


def unbroken(steps: int) -> list[list[Any]]:
    """The weights after so many steps."""
    network, optimizer = made()
    for _ in range(steps):
        step(network, optimizer)
    return [whole(p).tolist() for p in network.parameters()]


def main(folder: Path, steps: int, killed_at: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=os.environ.get("STORE", "env://"))
    network, optimizer = made()
    latest, killed = folder / "latest", folder / f"killed-{os.environ['RANK']}"
    if latest.exists():
        state = _state(network, optimizer)
        load(state, checkpoint_id=folder / latest.read_text())
        helpers_of_torch.set_model_state_dict(network, state["model"])
        helpers_of_torch.set_optimizer_state_dict(network, optimizer, state["optimizer"])
        print("goes on at", optimizer.applied_steps, "of", distributed.get_world_size(), flush=True)
    while optimizer.applied_steps < steps:
        step(network, optimizer)
        if optimizer.applied_steps % EVERY == 0:
            save(_state(network, optimizer), checkpoint_id=folder / str(optimizer.applied_steps))
            if distributed.get_rank() == 0:
                latest.write_text(str(optimizer.applied_steps))
            distributed.barrier()
        if optimizer.applied_steps == killed_at and not killed.exists():
            killed.touch()
            if "TORCHELASTIC_RUN_ID" in os.environ:
                os.kill(os.getppid(), signal.SIGKILL)  # torchrun's agent: as if the machine were gone
            os.kill(os.getpid(), signal.SIGKILL)
    print([whole(p).tolist() for p in network.parameters()], flush=True)
    print(unbroken(steps), flush=True)
    distributed.barrier()
    os._exit(0)  # as in processes.work()


def _state(network: nn.Module, optimizer: FusedCyclicSGD) -> dict[str, Any]:
    model_state, optimizer_state = helpers_of_torch.get_state_dict(network, optimizer)
    return {"model": model_state, "optimizer": optimizer_state}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
