"""Mixed precision, clipping and a moving average of the weights: the whole tail of a training step in ``opt.step()``.

With torch it is ``scaler.unscale_()``, ``clip_grad_norm_()``, ``scaler.step()``, ``scheduler.step()`` and
``AveragedModel.update_parameters()``, each with a pass over all weights or gradients.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from clr_native import FusedCyclicSGD, GradScaler

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels))
images, labels = torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
test_images, test_labels = images[1400:], labels[1400:]

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = FusedCyclicSGD(
    model.parameters(), base_lr=0.01, max_lr=0.3, step_size_up=56, max_grad_norm=1.0, ema_decay=0.98, ema_warmup=True
)
scaler = GradScaler("cpu")  # "cuda" where the model is; it leaves unscaling to the step


def accuracy():
    return (model(test_images).argmax(1) == test_labels).float().mean().item()


for epoch in range(8):
    for index in torch.randperm(1400).split(50):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images[index]), labels[index])
        opt.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}, norm before clipping {opt.last_grad_norm:.2f}")

with opt.averaged_weights():  # in place, and only here
    averaged = accuracy()
print(f"accuracy: {accuracy():.1%}, of the averaged weights: {averaged:.1%}; {opt.skipped_steps} steps skipped")
assert averaged > 0.94
assert opt.applied_steps + opt.skipped_steps == 8 * 28
