"""What changes during training, as functions of where it stands."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.config import ArcFaceConfig, OptimConfig, TrainConfig
from trainer.data.augment import seed_of


def learning_rate(config: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a half cosine from `lr` to `min_lr` (Loshchilov & Hutter, 2017)."""
    total = config.epochs * steps_per_epoch
    warm = min(config.warmup_epochs * steps_per_epoch, total - 1)
    if step < warm:
        return config.lr * (step + 1) / warm
    share = (step - warm) / max(1, total - warm)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * share))


def training_size(config: TrainConfig, share: float) -> int:
    """Side of the training images once `share` of the training is done."""
    for part in config.optim.size_schedule:
        if share < part.until:
            return part.size
    return config.input.size


def epoch_order(labels: Tensor, power: float, seed: int, epoch: int) -> Tensor:
    """Rows of one epoch in order: each once, or drawn ∝ class count^-power; new every epoch."""
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    count = len(labels)
    if power == 0:
        return torch.randperm(count, generator=generator)
    frequency = torch.bincount(labels).clamp(min=1).double() ** -power
    return torch.multinomial(frequency[labels], count, True, generator=generator)


def by_epoch(first: Sequence[float], then: float, epoch: int) -> float:
    """The value of an epoch: from `first`, one each, and `then` afterwards."""
    return first[epoch] if epoch < len(first) else then


def ramp(progress: float, begin: float, length: float) -> float:
    """0 up to `begin`, 1 from `begin + length`, linear between; all in epochs."""
    if progress < begin:
        return 0.0
    return 1.0 if length == 0 else min(1.0, (progress - begin) / length)


def margin(config: ArcFaceConfig, progress: float) -> float:
    """ArcFace's margin after `progress` epochs: none in the warm-up, then a linear ramp."""
    return config.margin * ramp(progress, config.warmup_epochs, config.ramp_epochs)
