"""An ensemble over the training rows, once: what a student is then distilled from.

Every teacher sees every view at its own size and in its own colours, made from its own packed
faces by the same draws. Batches are dealt to the processes of a group; the main one writes the
folder, in one rename.
"""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from contract import metrics
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import sha256_file, write_atomic, write_json_atomic, write_text_atomic
from contract.manifest import Manifest
from contract.provenance import commit_of_this_project
from trainer.config import AugmentConfig
from trainer.data.augment import augment, draw
from trainer.device import autocast_of
from trainer.distributed import is_main, sharded, wait_for_all, world
from trainer.ensemble import METRICS_FILE, Ensemble, faces_of, measured_rows, progress
from trainer.losses.feature import attention_map
from trainer.predict import pixels
from trainer.softlabels_store import (
    ABOUT_FILE,
    ARRAYS_FILE,
    HASHES_FILE,
    INDEX_FILE,
    ORDER_FILE,
    SCHEMA_VERSION,
    About,
    Hashes,
    Source,
)

ALIGNMENT_FILE = "alignmentreport.json"
BATCH = 64
WORST = 20
"""How many of the rows most at odds with their label are named."""


@dataclass(frozen=True)
class Views:
    """Which views of the training rows to ask the teachers about.

    `count` views of each row, augmented by `augment` with draws of `seed`; with `features` also
    the teachers' embeddings and attention maps pooled to `attention_grid` a side. With `amp` each
    teacher answers in the precision it was trained in, without it in float32.
    """

    count: int
    seed: int
    augment: AugmentConfig
    features: bool = False
    attention_grid: int = 4
    amp: bool = False


def _made_features(
    maps: list[Tensor], embeddings: list[Tensor], weights: list[float], grid: int
) -> dict[str, Tensor]:
    attention = torch.stack([attention_map(each, grid) for each in maps]).mean(0)
    parts = [
        F.normalize(each.float().flatten(1), dim=1) * weight**0.5
        for each, weight in zip(embeddings, weights, strict=True)
    ]
    embedding = torch.cat(parts, dim=1).half()
    return {"attention": attention.half().cpu(), "embedding": embedding.cpu()}


class _Teachers:
    """The teachers on a device, each with the training rows' faces as it wants them."""

    def __init__(self, ensemble: Ensemble, manifest: Manifest, device: str, amp: bool) -> None:
        self._ensemble, self._device, self._amp = ensemble, device, amp
        self._rows = np.array([n for n, r in enumerate(manifest.rows) if r.split == "train"])
        self._faces = [faces_of(manifest, trained) for trained in ensemble.teachers]
        for trained in ensemble.teachers:
            trained.model.to(device, memory_format=torch.channels_last)

    def _answers(
        self, part: slice, make: Callable[[Tensor, int], Tensor], grid: int | None
    ) -> dict[str, Tensor]:
        """The ensemble on some rows; `make` turns packed faces into a view of a size."""
        logits, maps, embeddings = [], [], []
        for trained, packed in zip(self._ensemble.teachers, self._faces, strict=True):
            batch = torch.from_numpy(packed[self._rows[part]])
            view = make(batch, packed.shape[1])
            with autocast_of(trained.config, self._device) if self._amp else nullcontext():
                own, features = trained.model(view, with_features=True)
            logits.append(own.float().cpu())
            if grid is not None:
                maps.append(features.map.float())
                embeddings.append(features.embedding)
        found = {"logits": self._ensemble.fuse(logits)}
        if grid is not None:
            weights = [teacher.weight for teacher in self._ensemble.info.teachers]
            found |= _made_features(maps, embeddings, weights, grid)
        return found

    def ask(
        self, title: str, draws: Tensor | None, config: AugmentConfig, grid: int | None = None
    ) -> dict[str, Tensor]:
        """`logits` `N×7` of all training rows, as they are or augmented by `draws` `N×DRAWS`.

        With `grid` also `attention` `N×grid²` and `embedding` `N×D`, float16.
        """
        bar = progress(title, len(self._rows))

        def compute(part: slice) -> dict[str, Tensor]:
            def make(faces: Tensor, size: int) -> Tensor:
                if draws is None:
                    return pixels(faces, self._device)
                given = draws[part].to(self._device)
                view = augment(faces.to(self._device), size, config, given)
                return view.contiguous(memory_format=torch.channels_last)

            with torch.inference_mode():
                found = self._answers(part, make, grid)
            bar.update((part.stop - part.start) * world())
            return found

        with bar:
            return sharded(len(self._rows), BATCH, compute, self._device)


def _arrays(teachers: _Teachers, count: int, views: Views) -> dict[str, NDArray[Any]]:
    """What `softlabels.npz` holds."""
    arrays = {"clean": teachers.ask("clean", None, views.augment)["logits"].numpy()}
    arrays["views"] = np.empty((count, views.count, len(EXPRESSIONS)), np.float32)
    grid = views.attention_grid if views.features else None
    for view in range(views.count):
        title = f"view {view + 1}/{views.count}"
        found = teachers.ask(title, draw(count, views.seed, view), views.augment, grid)
        arrays["views"][:, view] = found.pop("logits").numpy()
        for name, values in found.items():
            shape = (count, views.count, values.shape[1])
            arrays.setdefault(name, np.empty(shape, np.float16))[:, view] = values.numpy()
    return arrays


def _image_hashes(train: Manifest) -> list[str]:
    """Of every image, which must be the one the manifest tells of where it tells."""
    found = [sha256_file(train.path(row)) for row in train.rows]
    for row, sha256 in zip(train.rows, found, strict=True):
        if row.sha256 and row.sha256 != sha256:
            raise UserError(
                f"{train.place(row)}: the image does not have the manifest's sha256; restore it, "
                "or import the data again"
            )
    return found


def _agreement(labels: NDArray[np.int64], p: NDArray[np.float64]) -> dict[str, float | int]:
    entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)
    return {
        "n": len(labels),
        "agreement": metrics.accuracy(labels, p.argmax(axis=1)),
        "mean_p_of_label": float(p[np.arange(len(labels)), labels].mean()),
        "mean_entropy": float(entropy.mean()),
        "nll": metrics.nll(labels, p),
    }


def alignment(train: Manifest, logits: NDArray[np.float32], temperature: float) -> dict[str, Any]:
    """How far an ensemble's clean logits `N×7` agree with the labels of the training rows.

    Shares, probabilities, entropy and NLL (nats) are at `temperature`: over all rows, for each
    class and each source; and the rows whose label gets the least probability.
    """
    labels = train.labels()
    p = metrics.softmax(logits, temperature)
    sources = np.array([row.source for row in train.rows])
    of_label = p[np.arange(len(labels)), labels]
    worst = [
        {
            "path": train.rows[n].path,
            "label": train.rows[n].label,
            "ensemble": EXPRESSIONS[int(p[n].argmax())],
            "p_of_label": float(of_label[n]),
        }
        for n in np.argsort(of_label, kind="stable")[:WORST]
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "split": "train",
        "temperature": temperature,
        "all": _agreement(labels, p),
        "classes": {
            name: _agreement(labels[labels == c], p[labels == c])
            for c, name in enumerate(EXPRESSIONS)
            if (labels == c).any()
        },
        "sources": {
            name: _agreement(labels[sources == name], p[sources == name])
            for name in sorted(set(sources.tolist()))
        },
        "most_at_odds": worst,
    }


def _metrics_file(
    ensemble: Ensemble, train: Manifest, clean: NDArray[np.float32]
) -> dict[str, Any]:
    """The ensemble's figures, and its own on the rows its softlabels are for."""
    file = ensemble.file.parent / METRICS_FILE
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        rows = list(before["rows"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: not readable as an ensemble's figures ({error}); "
            "make the ensemble again with fer-trainer ensemble"
        ) from None
    info = ensemble.info
    rows += measured_rows("ensemble", clean, info.temperature, train, info.protocol)
    return {**before, "rows": rows}


def _write(
    folder: Path, out: Path, ensemble: Ensemble, manifest: Manifest, views: Views,
    arrays: dict[str, NDArray[Any]], images: list[str],
) -> None:  # fmt: skip
    """Every file of the softlabels into `folder`, which will be `out`."""
    train, info = manifest.select("train"), ensemble.info
    named: Any = arrays  # NumPy's own types take every name for an option
    write_atomic(folder / ARRAYS_FILE, lambda stream: np.savez(stream, **named))
    lines = [
        {"index": n, "path": row.path, "label": row.label, "sha256": sha256}
        for n, (row, sha256) in enumerate(zip(train.rows, images, strict=True))
    ]
    write_text_atomic(folder / INDEX_FILE, "".join(json.dumps(line) + "\n" for line in lines))
    write_json_atomic(folder / ORDER_FILE, list(EXPRESSIONS))
    report = alignment(train, arrays["clean"], info.temperature)
    write_json_atomic(folder / ALIGNMENT_FILE, report)
    write_json_atomic(folder / METRICS_FILE, _metrics_file(ensemble, train, arrays["clean"]))
    about = About(
        schema_version=SCHEMA_VERSION,
        rows=len(train.rows),
        views=views.count,
        seed=views.seed,
        augment=views.augment.model_dump(mode="json"),
        features=views.features,
        attention_grid=views.attention_grid,
        temperature=info.temperature,
        batch=BATCH,
        amp=views.amp,
        commit=commit_of_this_project(),
    )
    write_json_atomic(folder / ABOUT_FILE, about.model_dump(mode="json"))

    def source(file: Path, sha256: str) -> Source:
        return Source(path=os.path.relpath(file, out), sha256=sha256)

    hashes = Hashes(
        schema_version=SCHEMA_VERSION,
        files={file.name: sha256_file(file) for file in sorted(folder.iterdir())},
        manifest=source(manifest.file, manifest.sha256),
        ensemble=source(ensemble.file, ensemble.sha256),
        teachers=[source(trained.file, trained.sha256) for trained in ensemble.teachers],
    )
    write_json_atomic(folder / HASHES_FILE, hashes.model_dump(mode="json"))


def _may_be_replaced(folder: Path) -> bool:
    return (folder / HASHES_FILE).is_file() or not any(folder.iterdir())


def _check(out: Path, manifest: Manifest, views: Views) -> None:
    if out.exists() and not (out.is_dir() and _may_be_replaced(out)):
        raise UserError(f"{out} exists and holds no softlabels; name another place with --out")
    if not any(row.split == "train" for row in manifest.rows):
        raise UserError(f"{manifest.file}: no rows of split 'train'; import the data again")
    if views.features and not views.count:
        raise UserError("--features are those of augmented views: ask for --views 1 or more")


def export_softlabels(
    ensemble: Ensemble, manifest: Manifest, out: Path, views: Views, device: str
) -> dict[str, Any]:
    """Write the softlabels of a manifest's training rows to `out`; returns the alignment report.

    Replaces softlabels already there, in one rename: a call that is stopped leaves what was there
    before. Raises `UserError` for a manifest without training rows or with an image that is not
    the one it tells of, or when something else stands at `out`.
    """
    _check(out, manifest, views)
    train = manifest.select("train")
    images = _image_hashes(train) if is_main() else []
    arrays = _arrays(_Teachers(ensemble, manifest, device, views.amp), len(train.rows), views)
    if is_main():
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            fresh = Path(temporary) / "new"
            fresh.mkdir()
            _write(fresh, out, ensemble, manifest, views, arrays, images)
            if out.exists():
                out.rename(Path(temporary) / "old")
            fresh.rename(out)
    wait_for_all()
    return alignment(train, arrays["clean"], ensemble.info.temperature)
