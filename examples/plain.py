"""Handwritten digits under triangular cycles: the loop of torch's SGD, with one line less.

``opt.step()`` takes the rate and the momentum of this update from the schedule: there is no scheduler to call.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from clr_native import FusedCyclicSGD

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)  # 1797 images of 8 x 8
order = torch.randperm(len(labels))
images, labels = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=50, shuffle=True)

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
# Two epochs up and two down make a cycle, and each cycle is half as high as the one before.
opt = FusedCyclicSGD(
    model.parameters(),
    base_lr=0.01,
    max_lr=0.3,
    step_size_up=2 * len(loader),
    mode="triangular2",
    weight_decay=1e-4,
)

for epoch in range(12):
    for batch, targets in loader:
        loss = nn.functional.cross_entropy(model(batch), targets)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print(f"epoch {epoch + 1:2}: loss {loss.item():.3f}, next lr {opt.get_last_lr()[0]:.4f}")

accuracy = (model(images[1400:]).argmax(1) == labels[1400:]).float().mean().item()
print(f"accuracy on images that it has not seen: {accuracy:.1%}")
assert accuracy > 0.94
