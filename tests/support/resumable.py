"""A program that trains shards, saves as it goes, and goes on where it was if it is started again.

    python -m resumable FOLDER STEPS KILLED_AT

Each process ends by SIGKILL behind step KILLED_AT, the first time it comes there; all of them print their last weights.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.checkpoint import state_dict as helpers_of_torch
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import fully_shard

from clr_native import FusedCyclicSGD
from shards import SCHEDULE, model, whole

RULES: dict[str, Any] = {"max_grad_norm": 0.05, "skip_nonfinite": True, "ema_decay": 0.9, "weight_decay": 0.01}
EVERY = 5  # steps between two checkpoints


def main(folder: Path, steps: int, killed_at: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=os.environ.get("STORE", "env://"))
    network = model()
    fully_shard(network)
    optimizer = FusedCyclicSGD(network.parameters(), **SCHEDULE, **RULES)
    latest, killed = folder / "latest", folder / f"killed-{os.environ['RANK']}"
    if latest.exists():
        state = _state(network, optimizer)
        load(state, checkpoint_id=folder / latest.read_text())
        helpers_of_torch.set_model_state_dict(network, state["model"])
        helpers_of_torch.set_optimizer_state_dict(network, optimizer, state["optimizer"])
        print("goes on at", optimizer.applied_steps, "of", distributed.get_world_size(), flush=True)
    while optimizer.applied_steps < steps:
        step = optimizer.applied_steps
        data = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.autograd.backward((network(data) ** 2).mean())
        optimizer.step()
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
    weights = [whole(p).tolist() for p in network.parameters()]
    print(weights, optimizer.get_last_lr(), flush=True)
    distributed.barrier()
    os._exit(0)  # as in processes.work()


def _state(network: torch.nn.Module, optimizer: FusedCyclicSGD) -> dict[str, Any]:
    model_state, optimizer_state = helpers_of_torch.get_state_dict(network, optimizer)
    return {"model": model_state, "optimizer": optimizer_state}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
