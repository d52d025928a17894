"""A snapshot at the end of each cycle, where the rate is lowest, and the mean of what the snapshots say.

A file per snapshot has the optimizer's state too, so that a run goes on from any of them in the middle of its schedule.
"""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from clr_native import FusedCyclicSGD

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels))
images, labels = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
# The rate rises in one step, and falls to nothing along half a cosine in four epochs.
cycle = {"base_lr": 0.0, "max_lr": 0.3, "step_size_up": 1, "step_size_down": 4 * 28 - 1, "window": "hann"}
opt = FusedCyclicSGD(model.parameters(), **cycle)

with tempfile.TemporaryDirectory() as folder:
    opt.register_cycle_end_hook(
        lambda opt: torch.save((model.state_dict(), opt.state_dict()), Path(folder) / f"cycle{opt.cycle}.pt")
    )
    for _ in range(3 * 4):
        for index in torch.randperm(1400).split(50):
            opt.zero_grad()
            nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
            opt.step()

    files, outputs = sorted(Path(folder).iterdir()), []
    for file in files:
        weights, state = torch.load(file)
        model.load_state_dict(weights)
        outputs.append(model(images[1400:]).softmax(1))
        accuracy = (outputs[-1].argmax(1) == labels[1400:]).float().mean().item()
        print(f"{file.stem}: accuracy {accuracy:.1%}")
    opt.load_state_dict(state)  # of the last: the run would go on after 336 updates

accuracy = (torch.stack(outputs).mean(0).argmax(1) == labels[1400:]).float().mean().item()
print(f"all together: {accuracy:.1%}; {opt.applied_steps} updates")
assert len(files) == 3
assert opt.applied_steps == 336
assert accuracy > 0.94
