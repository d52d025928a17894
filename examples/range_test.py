"""Which rates to cycle between: a range test says, and then the training takes its answer.

The test trains for a while under a rising rate and reads the bounds off the curve. Afterwards model, optimizer and
random numbers are as they were, so that it changes nothing of what follows.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from clr_native import FusedCyclicSGD, lr_range_test

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels))
images, labels = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=50, shuffle=True)

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
before = [p.clone() for p in model.parameters()]
opt = FusedCyclicSGD(model.parameters(), lr=0.01)
result = lr_range_test(model, opt, nn.functional.cross_entropy, loader, start_lr=1e-4, end_lr=10.0, num_steps=300)
print(result)
assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))

schedule = result.schedule(step_size_up=2 * len(loader), mode="triangular2")
opt = FusedCyclicSGD(model.parameters(), schedule=schedule)
for _ in range(12):
    for batch, targets in loader:
        loss = nn.functional.cross_entropy(model(batch), targets)
        opt.zero_grad()
        loss.backward()
        opt.step()

accuracy = (model(images[1400:]).argmax(1) == labels[1400:]).float().mean().item()
print(f"trained between {schedule.base_lr:.4f} and {schedule.max_lr:.4f}: accuracy {accuracy:.1%}")
assert accuracy > 0.94
