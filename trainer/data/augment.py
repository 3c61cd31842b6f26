"""Augmentation of a whole batch at once, on whatever device the batch is."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import AugmentConfig


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def _geometry(count: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Affine matrices `N×2×3` in grid_sample's output → input sense."""
    angle = _uniform(count, -1, 1, generator) * math.radians(config.rotate_deg)
    zoom = torch.exp(_uniform(count, -1, 1, generator) * math.log(config.zoom))
    stretch = torch.exp(_uniform(count, -0.5, 0.5, generator) * math.log(config.stretch))
    shift = _uniform(2 * count, -2, 2, generator).view(2, count) * config.shift
    mirror = torch.where(_uniform(count, 0, 1, generator) < config.flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return torch.stack(
        [
            torch.stack([mirror * cosine / zoom * stretch, -sine / zoom, shift[0]], 1),
            torch.stack([mirror * sine / zoom, cosine / zoom / stretch, shift[1]], 1),
        ],
        1,
    )


def _light(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Contrast about the image's mean, an offset, and a ramp of light from a random side."""
    count, _, height, width = images.shape
    contrast = torch.exp(_uniform(count, -1, 1, generator) * math.log(config.contrast))
    offset = _uniform(count, -1, 1, generator) * config.brightness * 255
    side = _uniform(count, 0, 2 * math.pi, generator)
    strength = _uniform(count, 0, config.side_light, generator) * 255
    x = torch.linspace(-0.5, 0.5, width, device=images.device)
    y = torch.linspace(-0.5, 0.5, height, device=images.device)
    ramp = torch.cos(side)[:, None, None] * x + torch.sin(side)[:, None, None] * y[:, None]
    mean = images.mean((1, 2, 3), keepdim=True)
    lit = (images - mean) * contrast[:, None, None, None] + mean
    return lit + offset[:, None, None, None] + (strength[:, None, None] * ramp)[:, None]


def _blur(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Some images as from a smaller face: shrunk to 40–80 % and enlarged again."""
    size = images.shape[-1]
    chosen = _uniform(len(images), 0, 1, generator) < config.blur
    smaller = max(8, int(size * _uniform(1, 0.4, 0.8, generator).item()))
    low = F.interpolate(images, size=smaller, mode="bilinear", antialias=True)
    again = F.interpolate(low, size=size, mode="bilinear")
    return torch.where(chosen[:, None, None, None], again, images)


def _erase(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """A rectangle of 15–45 % of the side a way, in one grey, on some images."""
    count, _, height, width = images.shape
    chosen = _uniform(count, 0, 1, generator) < config.erase
    extent = _uniform(2 * count, 0.15, 0.45, generator).view(2, count)
    corner = _uniform(2 * count, 0, 1, generator).view(2, count) * (1 - extent)
    x = torch.arange(width, device=images.device) / width
    y = torch.arange(height, device=images.device) / height
    across = (x >= corner[0][:, None]) & (x < (corner[0] + extent[0])[:, None])
    down = (y >= corner[1][:, None]) & (y < (corner[1] + extent[1])[:, None])
    covered = (across[:, None, :] & down[:, :, None] & chosen[:, None, None])[:, None]
    grey = _uniform(count, 20, 235, generator)[:, None, None, None]
    return torch.where(covered, grey, images)


def augment(
    faces: Tensor, size: int, config: AugmentConfig, generator: torch.Generator
) -> Tensor:  # fmt: skip
    """`N×H×W×C` uint8 faces → `N×C×size×size` float32 in 0…255, changed at random.

    All randomness comes from `generator`, which must be on the device of `faces`.
    """
    images = faces.permute(0, 3, 1, 2).float()
    count, channels = images.shape[:2]
    grid = F.affine_grid(
        _geometry(count, config, generator), [count, channels, size, size], align_corners=False
    )
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = _light(images, config, generator)
    images = _blur(images, config, generator)
    images = _erase(images, config, generator)
    level = _uniform(count, 0, config.noise, generator)[:, None, None, None]
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    return (images + level * noise).clamp_(0, 255)
