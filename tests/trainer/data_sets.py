"""Tiny data sets laid out as their authors ship them."""

import csv
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.data.importers.ferplus import FERPLUS_COLUMNS

FOLDER = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
HAPPY = (0, 8, 1, 0, 0, 0, 0, 0, 1, 0)
SAD = (1, 0, 0, 7, 0, 0, 0, 0, 2, 0)
UNSURE = (3, 2, 2, 3, 0, 0, 0, 0, 0, 0)  # neutral by argmax, nothing by strict
CONTEMPT = (1, 0, 0, 0, 0, 0, 0, 9, 0, 0)


def pixels(seed: int, shape: tuple[int, ...] = (12, 12)) -> NDArray[np.uint8]:
    """An image of its own for every seed."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@dataclass(frozen=True)
class Photo:
    """One row of FER+. Photos of one `seed` have the same pixels."""

    usage: str
    name: str
    votes: Sequence[object]
    seed: int


def ferplus(
    folder: Path, photos: Iterable[Photo], twins: Iterable[str] = (), packed: bool = False
) -> Path:
    """fer2013new.csv, the PNGs in their folders or in images.tar, and twins_of_test.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / "unpacked" if packed else folder
    with (folder / "fer2013new.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Usage", "Image name", *FERPLUS_COLUMNS])
        for photo in photos:
            path = root / FOLDER.get(photo.usage, "unknown") / photo.name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels(photo.seed))
            writer.writerow([photo.usage, photo.name, *photo.votes])
    if packed:
        with tarfile.open(folder / "images.tar", "w") as tar:
            for part in sorted(root.iterdir()):
                tar.add(part, part.name)
        for image in sorted(root.rglob("*.png")):
            image.unlink()
    if twins:
        (folder / "twins_of_test.txt").write_text("".join(f"{name}\n" for name in twins))
    return folder


def muxspace(folder: Path, legend: Iterable[tuple[str, str]], seeds: dict[str, int]) -> Path:
    """legend.csv (`user.id,image,emotion`) and `images/`; photos of one seed are the same."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = list(legend)
    with (folder / "legend.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["user.id", "image", "emotion"])
        writer.writerows(["302", name, emotion] for name, emotion in rows)
    for number, name in enumerate(dict.fromkeys(name for name, _ in rows)):
        cv2.imwrite(str(folder / "images" / name), pixels(seeds.get(name, 10_000 + number)))
    return folder
