"""FER2013: 48×48 grey faces with one label each (Goodfellow et al., 1307.0414)."""

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from contract.errors import UserError
from trainer.data.importers._common import (
    NAMES,
    Sample,
    class_of,
    divide,
    first_existing,
    labelled_folders,
    make_folder,
    records,
    write,
)

SIDE = 48
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_FOLDERS = {**NAMES, **{str(number): name for number, name in enumerate(CLASSES)}}
_USAGE = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_FILES = (
    "fer2013.csv", "icml_face_data.csv", "fer2013/fer2013.csv", "fer2013/icml_face_data.csv",
)  # fmt: skip


def _from_csv(file: Path, out: Path) -> list[Sample]:
    """The rows of the CSV, their pixels written as PNG files named by row number."""
    images = out / "images"
    make_folder(images)
    samples = []
    for number, (place, record) in enumerate(records(file, ("emotion", "pixels", "Usage"))):
        usage = record["Usage"].strip()
        if usage not in _USAGE:
            raise UserError(f"{place}: unknown Usage '{usage}'; the file is damaged")
        label = class_of(record["emotion"], CLASSES, place)
        try:
            pixels = np.frombuffer(bytes(map(int, record["pixels"].split())), np.uint8)
        except ValueError:
            raise UserError(f"{place}: a pixel is not a whole number from 0 to 255") from None
        if len(pixels) != SIDE * SIDE:
            raise UserError(
                f"{place}: {len(pixels)} pixels instead of {SIDE}×{SIDE}; copy it again"
            )
        path = images / f"fer{number:07d}.png"
        _, content = cv2.imencode(".png", pixels.reshape(SIDE, SIDE))
        path.write_bytes(content.tobytes())  # not atomic: the manifests are written after it
        samples.append(Sample(path, label, _USAGE[usage], place))
    return samples


def import_fer2013(*, source: Path, out: Path, seed: int) -> dict[str, Any]:
    """FER2013 → `out` manifest; returns the report.

    `source` holds `fer2013.csv` or `icml_face_data.csv` (their header's spaces are ignored), whose
    pixels are written under `out/images`, or folders `train/<label>` and `test/<label>`. Training,
    PublicTest and PrivateTest become train, val and test; the folders have no PublicTest of their
    own, so `val` is cut from training. Raises `UserError` naming the file and line of a fault.
    """
    lost: Counter[str] = Counter()
    file = first_existing(source, _FILES)
    if file is not None:
        samples = _from_csv(file, out)
    elif (source / "train").is_dir():
        samples = labelled_folders(source, _FOLDERS, lost)
    else:
        raise UserError(
            f"{source}: has neither fer2013.csv, icml_face_data.csv nor a folder train; "
            "name the folder that holds FER2013"
        )
    rows = divide(samples, data_set="fer2013", source=source, out=out, seed=seed, lost=lost)
    kept = [row for row in rows if row is not None]
    report = write(out, kept, data_set="fer2013", protocol="single label", seed=seed, lost=lost)
    return {"fer2013": report}
