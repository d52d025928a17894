"""An iteration as a CUDA graph, which follows the cycle when it is replayed: the schedule lives on the device.

Needs a GPU, and a package with kernels for it; ``clr-native info`` says whether there are.
"""

import torch
from torch import nn

import clr_native

cuda = clr_native.build_info()["cuda"]
if not (torch.cuda.is_available() and cuda["available"]):
    print(f"no GPU to use: {cuda['reason'] or 'torch sees none'}")
    raise SystemExit

torch.manual_seed(0)
images, labels = torch.randn(64, 256, device="cuda"), torch.randint(10, (64,), device="cuda")
model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)).cuda()
opt = clr_native.FusedCyclicSGD(model.parameters(), base_lr=0.01, max_lr=0.1, step_size_up=100, max_grad_norm=1.0)


def iteration():
    loss = nn.functional.cross_entropy(model(images), labels)
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss


first_loss = iteration().item()
torch.cuda.synchronize()
with torch.cuda.stream(torch.cuda.Stream()):
    for _ in range(3):  # a warm-up beside the stream of the capture, as torch asks for
        iteration()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    loss = iteration()  # recorded, not run
for _ in range(300):  # copy the next batch into images and labels before each
    graph.replay()

print(f"loss {first_loss:.3f} -> {loss.item():.3f}, {opt.applied_steps} updates, next lr {opt.get_last_lr()[0]:.4f}")
assert opt.applied_steps == 304
assert loss.item() < 0.5 * first_loss
