"""Small manifests of pictures that a test can tell apart, and the command in this process."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from contract.command import run_command
from contract.faces import Image
from contract.manifest import Row, write_manifest
from trainer.commands.data import main


def picture(seed: int, side: int = 48) -> Image:
    """A smooth picture of its own for every seed, grey, as much like a photo as noise gets."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (12, 12)).cumsum(0).cumsum(1)
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    scaled = 255 * (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.asarray(scaled.round(), np.uint8)


@dataclass(frozen=True)
class Face:
    """A row to write; rows of one `seed` show the same picture."""

    name: str
    split: str
    seed: int
    label: str = "happy"
    source: str = "x"
    group: str = ""
    votes: tuple[float, ...] | None = None


def make(folder: Path, faces: Iterable[Face], file: str = "manifest.csv") -> Path:
    """The pictures in `folder/images` and a manifest of them."""
    rows = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for face in faces:
        path = folder / "images" / face.name
        if not path.exists():
            cv2.imwrite(str(path), picture(face.seed))
        rows.append(
            Row(f"images/{face.name}", face.label, face.split, face.source, face.votes, face.group)
        )
    write_manifest(folder / file, rows)
    return folder / file


def fer_data(*arguments: object) -> int:
    """The exit code of `fer-trainer data …`."""
    return run_command("fer-trainer", lambda: main([str(argument) for argument in arguments]))
