"""Groups with rates of their own: a trained body moves slowly under a new head, and both follow one cycle.

``lr_scale`` is the factor of a group's rate. Any other argument may stand in a group too: biases have no weight decay.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from clr_native import FusedCyclicSGD

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels))
images, labels = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
odd = labels % 2

body = nn.Sequential(nn.Linear(64, 64), nn.ReLU())


def train(head, targets, opt, epochs):
    for _ in range(epochs):
        for index in torch.randperm(1400).split(50):
            loss = nn.functional.cross_entropy(head(body(images[index])), targets[index])
            opt.zero_grad()
            loss.backward()
            opt.step()
    return (head(body(images[1400:])).argmax(1) == targets[1400:]).float().mean().item()


digits = nn.Linear(64, 10)
opt = FusedCyclicSGD([*body.parameters(), *digits.parameters()], base_lr=0.01, max_lr=0.3, step_size_up=56)
print(f"the ten digits: {train(digits, labels, opt, epochs=8):.1%}")

is_odd = nn.Linear(64, 2)
groups = [
    {"params": [body[0].weight], "lr_scale": 0.2},
    {"params": [body[0].bias], "lr_scale": 0.2, "weight_decay": 0.0},
    {"params": [*is_odd.parameters()]},
]
opt = FusedCyclicSGD(groups, base_lr=0.01, max_lr=0.3, step_size_up=56, weight_decay=1e-4)
accuracy = train(is_odd, odd, opt, epochs=4)
print(f"even or odd: {accuracy:.1%}; rates of the groups: {', '.join(f'{lr:.4f}' for lr in opt.get_last_lr())}")
body_lr, _, head_lr = opt.get_last_lr()
assert abs(body_lr - 0.2 * head_lr) < 1e-12
assert accuracy > 0.93
