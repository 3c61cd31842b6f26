"""What images hold: whether they can be decoded, and when two of them are the same picture.

Two notions of sameness. **Exact**: the decoded pixels are equal, whatever the file format; grey is
grey whether it was stored in one channel or in three. **Near**: the same photo after rescaling,
recompression, a change of brightness, a small shift or crop, a watermark, or mirrored (training
mirrors images itself, so a mirrored copy leaks as much as a plain one).

Near is measured by a perceptual hash: the signs, against their median, of the 16×16 lowest DCT
coefficients of the image at 32×32, thus 256 bits (the "pHash" with more frequencies). Faces are
aligned and resemble each other, and the usual 64 bits cannot tell a copy from a look-alike: on
48×48 faces their distances between copies and between strangers overlap. With 256 bits the
distances between the pictures of FER+ form two heaps with a gap between them, and `NEAR_BITS` is on
the side of the copies: of more images, more pairs of strangers come near the gap.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from contract.faces import Image, read_image
from contract.files import sha256_file

SIDE = 16
BITS = SIDE * SIDE
NEAR_BITS = 52
"""Pictures are near duplicates when at most so many of the 256 bits differ."""

_CHUNK = 64
_BLOCK = 2048
_MIRROR = np.tile([1.0, -1.0], SIDE // 2).astype(np.float32)  # of the horizontal frequencies

Bits = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Content:
    """An image file: the hash of its bytes, of its pixels, and its two perceptual hashes.

    `sha256` is None where the file cannot be read, `pixels` where it cannot be decoded; `near` is
    empty where it was not asked for.
    """

    sha256: str | None
    pixels: bytes | None
    near: bytes = b""


def pixel_hash(image: Image) -> bytes:
    """16 bytes that are equal for equal pixels: colour with equal channels counts as grey."""
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = np.ascontiguousarray(image[..., 0])
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()[:16]


def perceptual_hash(image: Image) -> Bits:
    """`2×32` packed bits: of the image and of its mirror image. See the head of this file."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    small = cv2.resize(grey, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:SIDE, :SIDE]
    both = np.stack([low, low * _MIRROR]).reshape(2, BITS)
    # The first coefficient is the brightness, which is no part of the picture.
    return np.packbits(both > np.median(both[:, 1:], axis=1, keepdims=True), axis=1)


def file_hash(path: Path) -> str | None:
    """SHA-256 of a file's bytes, or None where it cannot be read."""
    try:
        return sha256_file(path)
    except OSError:
        return None


def content_of(path: Path, near: bool) -> Content:
    """Read, hash and decode one file."""
    sha256, image = file_hash(path), read_image(path)
    if image is None:
        return Content(sha256, None)
    return Content(sha256, pixel_hash(image), perceptual_hash(image).tobytes() if near else b"")


def in_threads(task: Callable[[Path], T], paths: Sequence[Path], title: str) -> list[T]:
    """`task` of every path, in order, by several threads (decoding and hashing free the GIL)."""
    parts = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    done: list[T] = []
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=len(paths), desc=title, unit="image", disable=None) as bar,
    ):
        for results in pool.map(lambda part: [task(path) for path in part], parts):
            done += results
            bar.update(len(results))
    return done


def contents(paths: Sequence[Path], near: bool = False) -> list[Content]:
    """The content of every file, in order."""
    return in_threads(lambda path: content_of(path, near), paths, "reading images")


def near_pairs(hashes: Sequence[bytes]) -> list[tuple[int, int]]:
    """Positions (i < j) of the perceptual hashes that differ in at most `NEAR_BITS` bits.

    A picture is compared with the other and with the other's mirror image. Every pair is looked at:
    bits as ±1 make the comparison a matrix product.
    """
    if not hashes:
        return []
    packed = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), 2, BITS // 8)

    def signs(start: int) -> NDArray[np.float32]:
        bits = np.unpackbits(packed[start : start + _BLOCK], axis=2).astype(np.float32)
        return np.asarray(bits * 2 - 1, np.float32)

    found: list[tuple[int, int]] = []
    starts = range(0, len(packed), _BLOCK)
    for first in tqdm(starts, "comparing pictures", disable=None if len(starts) > 2 else True):
        plain, mirrored = signs(first).transpose(1, 0, 2)
        for second in starts[first // _BLOCK :]:
            other = signs(second)[:, 0]
            agree = np.maximum(plain @ other.T, mirrored @ other.T)
            i, j = np.nonzero(agree >= BITS - 2 * NEAR_BITS)
            i, j = i + first, j + second
            found += zip(i[i < j].tolist(), j[i < j].tolist(), strict=True)
    return found
