"""What a webcam does to a face, as numbers: how it moves, and how a picture of it suffers.

The strengths in `degradation.toml` were fitted to recordings by `fer-edge sessions fit` and are
fixed: every built session records their hash.
"""

import hashlib
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UserError
from contract.faces import Image
from contract.validation import explain

STRENGTHS = Path(__file__).parent / "degradation.toml"
SLOWEST_HZ, FASTEST_HZ = 0.1, 0.8
WAVES = 4


class Degradation(BaseModel):
    """Strengths. Speeds are root mean squares; motion per axis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shift_speed: float = Field(ge=0, description="Movement of a face, its sides per second.")
    scale_speed: float = Field(ge=0, description="Change of its size, shares per second.")
    rotation_speed: float = Field(ge=0, description="Tilting of the head, degrees per second.")
    light_speed: float = Field(ge=0, description="Change of the brightness, shares per second.")
    blur_sigma: float = Field(ge=0, le=10, description="Gaussian blur, pixels of the frame.")
    noise_std: float = Field(ge=0, le=50, description="Sensor noise, grey levels, each frame new.")
    jpeg_quality: int = Field(ge=1, le=100, description="Quality of the JPEG compression.")


@dataclass(frozen=True)
class Strengths:
    """Strengths and the hash of the file they were read from."""

    degradation: Degradation
    sha256: str


def read_strengths(file: Path = STRENGTHS) -> Strengths:
    """Fitted strengths from a TOML file; its table `[measured]` is for people.

    Raises `UserError` naming file and key.
    """
    try:
        text = file.read_bytes()
        content = tomllib.loads(text.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(
            f"{file}: not readable as TOML ({error}); make one with fer-edge sessions fit"
        ) from None
    content.pop("measured", None)
    try:
        fitted = Degradation.model_validate(content)
    except ValidationError as error:
        raise explain(error, Degradation, file) from None
    return Strengths(fitted, hashlib.sha256(text).hexdigest())


class Wander:
    """A smooth random course around 0 with a given root-mean-square speed: a few slow sines.

    A function of time alone, so that any frame can be made without those before it.
    """

    def __init__(self, rng: np.random.Generator, speed: float) -> None:
        self._omega = 2 * math.pi * rng.uniform(SLOWEST_HZ, FASTEST_HZ, WAVES)
        self._phase = rng.uniform(0, 2 * math.pi, WAVES)
        # Each wave has the same share of the squared speed, (amplitude × omega)² / 2.
        self._amplitude = speed * math.sqrt(2 / WAVES) / self._omega

    def at(self, t_s: float) -> float:
        """Where it is at a time in seconds."""
        return float((self._amplitude * np.sin(self._omega * t_s + self._phase)).sum())


class Lens:
    """Blur, sensor noise and compression, the same for the same seed and frame number."""

    def __init__(self, degradation: Degradation, seed: int) -> None:
        self._degradation = degradation
        self._seed = seed
        self._noise: NDArray[np.int16] | None = None

    def _noise_for(self, number: int, height: int, width: int) -> NDArray[np.int16]:
        """A window of a fixed field at a place of the frame's own: cheaper than fresh noise."""
        if self._noise is None or self._noise.shape[:2] != (height + 64, width + 64):
            rng = np.random.default_rng((self._seed, 0))
            field = rng.normal(0, self._degradation.noise_std, (height + 64, width + 64, 3))
            self._noise = np.rint(field).astype(np.int16)
        rng = np.random.default_rng((self._seed, 1, number))
        top, left = rng.integers(0, 64, 2)
        return self._noise[top : top + height, left : left + width]

    def apply(self, image: Image, number: int) -> Image:
        """Frame `number` as the camera would deliver it, uint8 `H×W×3`."""
        strength = self._degradation
        if strength.blur_sigma > 0.1:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), strength.blur_sigma), np.uint8)
        if strength.noise_std > 0:
            noise = self._noise_for(number, *image.shape[:2])
            image = np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, strength.jpeg_quality]
        _, packed = cv2.imencode(".jpg", image, quality)
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
