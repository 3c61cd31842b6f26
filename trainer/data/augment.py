"""Augmentation of a whole batch at once, on whatever device the batch is.

Every image is changed by its own row of uniform numbers, so the view of an image is a function of
that row alone: whoever has the row can make the same view again, at any size and in any batch.
"""

import functools
import hashlib
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import AugmentConfig

_COLUMNS = (
    "angle", "zoom", "stretch", "shift_x", "shift_y", "flip", "contrast", "offset", "side",
    "strength", "blurred", "sharpness", "erased", "width", "height", "left", "top", "grey",
    "level", "grain",
)  # fmt: skip
DRAWS = len(_COLUMNS)
"""Uniform numbers an image takes."""

_BLUR_SCALES = (0.4, 0.5, 0.6, 0.7, 0.8)
_GRAINS = 64


def seed_of(*parts: int) -> int:
    """One 63-bit seed from several numbers, the same everywhere."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw(count: int, *seed: int) -> Tensor:
    """`count×DRAWS` uniform numbers in [0, 1) on the CPU, a function of the numbers in `seed`."""
    generator = torch.Generator().manual_seed(seed_of(*seed))
    return torch.rand(count, DRAWS, generator=generator)


@functools.lru_cache(maxsize=4)
def _grain(size: int, device: str) -> Tensor:
    """`_GRAINS×1×size×size` of standard normal noise to choose from: making it anew is slow."""
    generator = torch.Generator().manual_seed(seed_of(size))
    return torch.randn(_GRAINS, 1, size, size, generator=generator).to(device)


class _Draws:
    """The columns of a table of draws by name."""

    def __init__(self, draws: Tensor) -> None:
        self._columns = dict(zip(_COLUMNS, draws.unbind(1), strict=True))

    def __call__(self, name: str, low: float = 0.0, high: float = 1.0) -> Tensor:
        return self._columns[name] * (high - low) + low


def _geometry(drawn: _Draws, config: AugmentConfig) -> Tensor:
    """Affine matrices `N×2×3` in grid_sample's output → input sense."""
    angle = drawn("angle", -1, 1) * math.radians(config.rotate_deg)
    zoom = torch.exp(drawn("zoom", -1, 1) * math.log(config.zoom))
    stretch = torch.exp(drawn("stretch", -0.5, 0.5) * math.log(config.stretch))
    shift_x, shift_y = drawn("shift_x", -2, 2), drawn("shift_y", -2, 2)
    mirror = torch.where(drawn("flip") < config.flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return torch.stack(
        [
            torch.stack(
                [mirror * cosine / zoom * stretch, -sine / zoom, shift_x * config.shift], 1
            ),
            torch.stack([mirror * sine / zoom, cosine / zoom / stretch, shift_y * config.shift], 1),
        ],
        1,
    )


def _over_images(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _light(images: Tensor, drawn: _Draws, config: AugmentConfig) -> Tensor:
    """Contrast about the image's mean, an offset, and a ramp of light from a random side."""
    height, width = images.shape[2:]
    contrast = torch.exp(drawn("contrast", -1, 1) * math.log(config.contrast))
    offset = drawn("offset", -1, 1) * config.brightness * 255
    side = drawn("side", 0, 2 * math.pi)
    strength = drawn("strength", 0, config.side_light) * 255
    x = torch.linspace(-0.5, 0.5, width, device=images.device)
    y = torch.linspace(-0.5, 0.5, height, device=images.device)
    across, down = (torch.cos(side) * strength), (torch.sin(side) * strength)
    level = images.mean((1, 2, 3)) * (1 - contrast) + offset
    ramp = across[:, None, None] * x + down[:, None, None] * y[:, None] + level[:, None, None]
    return torch.addcmul(ramp[:, None], images, _over_images(contrast))


def _blur(images: Tensor, drawn: _Draws, config: AugmentConfig) -> Tensor:
    """Some images as from a smaller face: shrunk to 40–80 % and enlarged again."""
    size = images.shape[-1]
    chosen = drawn("blurred") < config.blur
    which = (drawn("sharpness") * len(_BLUR_SCALES)).long()
    for number, scale in enumerate(_BLUR_SCALES):
        rows = (chosen & (which == number)).nonzero().flatten()
        if len(rows):
            smaller = max(8, int(size * scale))
            low = F.interpolate(images[rows], size=smaller, mode="bilinear", antialias=True)
            images[rows] = F.interpolate(low, size=size, mode="bilinear")
    return images


def _erase(images: Tensor, drawn: _Draws, config: AugmentConfig) -> Tensor:
    """A rectangle of 15–45 % of the side a way, in one grey, on some images."""
    height, width = images.shape[2:]
    wide, high = drawn("width", 0.15, 0.45), drawn("height", 0.15, 0.45)
    left, top = drawn("left") * (1 - wide), drawn("top") * (1 - high)
    x = torch.arange(width, device=images.device) / width
    y = torch.arange(height, device=images.device) / height
    across = (x >= left[:, None]) & (x < (left + wide)[:, None])
    down = (y >= top[:, None]) & (y < (top + high)[:, None])
    chosen = drawn("erased") < config.erase
    covered = (across[:, None, :] & down[:, :, None] & chosen[:, None, None])[:, None]
    return torch.where(covered, _over_images(drawn("grey", 20, 235)), images)


def augment(faces: Tensor, size: int, config: AugmentConfig, draws: Tensor) -> Tensor:
    """`N×H×W×C` uint8 faces → `N×C×size×size` float32 in 0…255, changed at random.

    `draws` (`N×DRAWS` in [0, 1), on the faces' device) is all the randomness there is: a result
    depends on its own face and row of draws, not on the rest of the batch.
    """
    drawn = _Draws(draws)
    images = faces.permute(0, 3, 1, 2).float()
    count, channels = images.shape[:2]
    grid = F.affine_grid(
        _geometry(drawn, config), [count, channels, size, size], align_corners=False
    )
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = _light(images, drawn, config)
    images = _blur(images, drawn, config)
    images = _erase(images, drawn, config)
    if config.noise > 0:
        grain = _grain(size, str(images.device))[(drawn("grain") * _GRAINS).long()]
        images = torch.addcmul(images, grain, _over_images(drawn("level", 0, config.noise)))
    return images.clamp_(0, 255)
