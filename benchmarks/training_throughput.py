"""Images a second of a training step: this trainer's beside the stock timm way.

    PYTHONPATH=. python benchmarks/training_throughput.py --json benchmarks/DATE-throughput.json

Both train MobileNetV3-Large from the same PNG files, at the same size, batch and precision
(float32), data loading and augmentation included. `timm` is ImageFolder, `create_transform`,
`create_loader` and `create_optimizer_v2` with their defaults and a plain loop; `timm_channels_last`
adds that memory format, which its train script offers. `trainer` is this project's loop on grey
faces, as it trains them; `trainer_rgb` the same on three channels; `trainer_compiled` as with
`--set compile=true`. The ways take turns, round by round, in one process; ratios are of the same
round. `trainer_over_ready` compares a step's rate with that of the same step on a batch that is
already augmented (what better data loading could gain), taking turns step by step, since a machine
drifts by more than that between rounds.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
from timm.data import ImageDataset, create_loader, create_transform
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from contract.faces import FaceInput
from contract.files import write_json_atomic
from contract.manifest import Manifest, read_manifest, write_manifest
from trainer.backbones import build
from trainer.config import ModelConfig, OptimConfig, TrainConfig
from trainer.data.cache import packed_faces
from trainer.device import Device
from trainer.engine import Data, Trainer
from trainer.record import run_record
from trainer.tasks import LabelTask

BACKBONE = "mobilenetv3_large_100"


class TimmWay:
    """ImageFolder → create_loader → a plain loop."""

    def __init__(self, folder: Path, size: int, batch: int, workers: int, last: bool) -> None:
        self._format = torch.channels_last if last else torch.contiguous_format
        self._model = timm.create_model(BACKBONE, num_classes=7).to(memory_format=self._format)
        self._optimiser = create_optimizer_v2(self._model, opt="adamw", lr=1e-3, weight_decay=0.05)
        dataset = ImageDataset(str(folder), transform=create_transform(size, is_training=True))
        self._loader = create_loader(
            dataset, (3, size, size), batch, is_training=True, num_workers=workers,
            device=torch.device("cpu"), use_prefetcher=False, persistent_workers=False,
        )  # fmt: skip
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())

    def step(self) -> None:
        """One optimiser step."""
        images, labels = next(self._batches)
        logits = self._model(images.contiguous(memory_format=self._format))
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad()

    def round(self, steps: int, warm: int) -> float:
        """Seconds of so many steps, after some that start the workers."""
        self._model.train()
        self._batches = iter(self._loader)
        for _ in range(warm):
            self.step()
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        seconds = time.perf_counter() - began
        self._batches = iter(())
        return seconds


class OurWay:
    """The trainer's own step."""

    def __init__(
        self, manifest: Manifest, folder: Path, face: FaceInput, batch: int, compiled: bool = False
    ) -> None:
        config = TrainConfig(
            phase="throughput",
            input=face,
            compile=compiled,
            model=ModelConfig(backbone=BACKBONE, stem_stride=2),
            optim=OptimConfig(batch_size=batch),
        )
        labels = torch.from_numpy(manifest.labels())
        channels = face.channels
        model = build(config.model, face, [128.0] * channels, [64.0] * channels)
        rows = torch.arange(len(labels))
        data = Data(torch.from_numpy(packed_faces(manifest, face)), labels, rows, rows)
        task = LabelTask(nn.functional.one_hot(labels, 7).float(), labels, None)
        self._trainer = Trainer(config, folder, model, task, data, Device("cpu", "cpu", None))
        self._order = torch.randperm(len(labels))

    def round(self, steps: int, warm: int) -> float:
        """Seconds of so many steps."""
        for number in range(warm):
            self._trainer._step(self._order, number)
        began = time.perf_counter()
        for number in range(steps):
            self._trainer._step(self._order, warm + number)
        return time.perf_counter() - began

    def beside_ready(self, steps: int) -> float:
        """Time of steps on batches that are already there ÷ time of whole steps, step by step."""
        trainer = self._trainer
        make, whole, ready = trainer._pieces, 0.0, 0.0
        for number in range(steps):
            began = time.perf_counter()
            trainer._step(self._order, number)
            whole += time.perf_counter() - began
            made = list(make(self._order, number))
            trainer._pieces = lambda order, step, made=made: iter(made)  # type: ignore[misc]
            began = time.perf_counter()
            trainer._step(self._order, number)
            ready += time.perf_counter() - began
            trainer._pieces = make  # type: ignore[method-assign]
        return ready / whole


def lay_out(manifest: Manifest, count: int, folder: Path) -> Manifest:
    """The first training images as an ImageFolder of links, and a manifest of the same."""
    rows = [row for row in manifest.rows if row.split == "train"][:count]
    for number, row in enumerate(rows):
        link = folder / "images" / row.label / f"{number}{Path(row.path).suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(manifest.path(row).resolve())
    made = [
        type(row)(f"images/{row.label}/{n}{Path(row.path).suffix}", row.label, "train", row.source)
        for n, row in enumerate(rows)
    ]
    write_manifest(folder / "manifest.csv", made)
    return read_manifest(folder / "manifest.csv")


def _spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, default=Path("data/ferplus/argmax/manifest.csv"))
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="of timm's loader")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a round")
    parser.add_argument("--warm", type=int, default=4, help="steps before the clock starts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    size, batch = given.size, given.batch_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = lay_out(read_manifest(given.manifest), given.images, folder)
        images = folder / "images"
        grey, rgb = FaceInput(size=size), FaceInput(size=size, colour="rgb")
        ours = OurWay(manifest, folder / "a", grey, batch)
        ways: dict[str, Callable[[int, int], float]] = {
            "timm": TimmWay(images, size, batch, given.workers, False).round,
            "timm_channels_last": TimmWay(images, size, batch, given.workers, True).round,
            "trainer": ours.round,
            "trainer_rgb": OurWay(manifest, folder / "c", rgb, batch).round,
            "trainer_compiled": OurWay(manifest, folder / "d", grey, batch, True).round,
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        beside: list[float] = []
        for number in range(given.rounds + 1):
            if number:
                beside.append(ours.beside_ready(given.steps))
            for name, way in ways.items():
                rate = given.steps * batch / way(given.steps, given.warm)
                if number:  # the first round only warms up
                    rates[name].append(rate)
                    print(f"round {number} {name}: {rate:.0f} images/s", flush=True)

    def ratio(one: str, other: str) -> dict[str, float]:
        return _spread([a / b for a, b in zip(rates[one], rates[other], strict=True)])

    result = {
        "images_per_s": {name: _spread(values) for name, values in rates.items()},
        "trainer_over_timm": ratio("trainer", "timm"),
        "trainer_over_timm_channels_last": ratio("trainer", "timm_channels_last"),
        "trainer_rgb_over_timm": ratio("trainer_rgb", "timm"),
        "trainer_compiled_over_timm": ratio("trainer_compiled", "timm"),
        "trainer_compiled_over_timm_channels_last": ratio("trainer_compiled", "timm_channels_last"),
        "trainer_over_ready": _spread(beside),
        "rounds": given.rounds,
        "precision": "float32",
    }
    print(json.dumps(result, indent=2))
    if given.json:
        command = "python benchmarks/training_throughput.py"
        write_json_atomic(given.json, {**result, "run": run_record(command, sys.argv[1:])})


if __name__ == "__main__":
    main()
