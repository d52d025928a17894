"""Small networks of many kinds, each with a batch and a loss: what backward() leaves in the caches differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """``make`` returns a model; ``shape`` is that of a batch of inputs; ``a group a tensor`` or all in one."""

    title: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    a_group_a_tensor: bool = False

    def model(self) -> nn.Module:
        """A model, always with the same weights."""
        torch.manual_seed(0)
        return self.make()

    def batches(self, count: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [torch.randn(self.shape, generator=generator) for _ in range(count)]


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    output = model(batch)
    loss: Tensor = (output[0] if isinstance(output, tuple) else output).square().mean()
    return loss


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def norms(blocks: int, width: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()) for _ in range(blocks))
    )


class Residual(nn.Module):
    """A basic block of ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        changes = stride != 1 or inputs != outputs
        shortcut = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)) if changes else ()
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.body(inputs) + self.shortcut(inputs))


def resnet18() -> nn.Module:
    widths = (64, 64, 128, 256, 512)
    blocks = [
        Residual(widths[stage] if block == 0 else width, width, 2 if stage and block == 0 else 1)
        for stage, width in enumerate(widths[1:])
        for block in range(2)
    ]
    stem = (nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def vit(blocks: int = 6, width: int = 384, heads: int = 6) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)


def mobile(blocks: int = 40, width: int = 32) -> nn.Module:
    """Depthwise and pointwise convolutions, each with its norm."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1, bias=False)]
    for _ in range(blocks):
        layers += [nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers)


NETWORKS = {
    "mlp": Network("MLP 784-256-10", mlp, (64, 784)),
    "norms": Network("250 x (Linear 64, LayerNorm, ReLU)", lambda: norms(250, 64), (16, 64)),
    "norms-groups": Network("the same, a group a tensor", lambda: norms(250, 64), (16, 64), a_group_a_tensor=True),
    "resnet-18": Network("ResNet-18, 32 x 32", resnet18, (4, 3, 32, 32)),
    "vit-s": Network("six blocks of ViT-S", vit, (1, 64, 384)),
    "mobile": Network("40 x (depthwise, pointwise)", mobile, (2, 3, 32, 32)),
    "lstm": Network("LSTM, two layers of 256", lambda: nn.LSTM(64, 256, 2, batch_first=True), (8, 16, 64)),
}
