"""A phase small enough to be trained in a test: gratings instead of faces, a tiny network."""

import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from contract.expressions import EXPRESSIONS
from contract.manifest import Row, write_manifest
from tests.models import grating
from trainer.cli import main
from trainer.config import AugmentConfig

NOTHING = AugmentConfig(
    flip=0, rotate_deg=0, zoom=1, stretch=1, shift=0, brightness=0, contrast=1, side_light=0,
    blur=0, noise=0, erase=0,
)  # fmt: skip
CLASSES = len(EXPRESSIONS)
PHASE = """\
description = "A tiny network on gratings."
protocol = "gratings"
threads = 1
checkpoint_every_s = 1e-6  # after every step

[input]
size = 32
[input.crop.yunet]
scale = 1.0

[model]
backbone = "test_resnet"
dropout = 0.2

[optim]
epochs = 4
batch_size = 16
accum_steps = 2
lr = 1e-2
warmup_epochs = 0.5
ema_decay = 0.9
balance_power = 0.5
size_schedule = [ { until = 0.5, size = 24 } ]
"""


def make_manifest(folder: Path, rows: Mapping[str, int] | None = None, votes: bool = True) -> Path:
    """Labelled gratings, so many rows of each split, as PNG files and one manifest."""
    rng = np.random.default_rng(0)
    made: list[Row] = []
    for split, count in (rows or {"train": 448, "calib": 70, "val": 70}).items():
        for number in range(count):
            label = number % CLASSES
            path = folder / split / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), grating(label, rng, 32, noise=60.0))
            given = rng.multinomial(10, np.full(CLASSES, 0.3 / CLASSES) + 0.7 * np.eye(7)[label])
            shares = tuple(map(float, given)) if votes else None
            name = f"{split}/{path.name}"
            made.append(Row(name, EXPRESSIONS[label], split, "gratings", shares))
    write_manifest(folder / "manifest.csv", made)
    return folder / "manifest.csv"


def make_phase(folder: Path, text: str = PHASE) -> Path:
    """`tiny.toml` with the manifest and the run folders beside it."""
    file = folder / "tiny.toml"
    places = f"manifest = '{folder / 'manifest.csv'}'\nout = '{folder / 'runs'}'\n"
    file.write_text(places + text, encoding="utf-8")
    return file


def fer_trainer(*arguments: str) -> int:
    """The command in this process; returns its exit code, raises `UserError`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fer-trainer", *arguments])
        return main()
