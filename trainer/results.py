"""What a finished run leaves: predictions, metrics, plots and the float bundle."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contract.files import write_json_atomic
from contract.manifest import Manifest
from trainer.checkpoint import Trained
from trainer.distributed import is_main
from trainer.export import export_bundle
from trainer.figures import run_metrics
from trainer.plots import plot_run
from trainer.predict import predict
from trainer.predictions import Predictions, save_predictions
from trainer.reliability import temperature_or_one


def _predictions(
    trained: Trained, manifest: Manifest, faces: Tensor, device: str, name: str
) -> Predictions:
    """The network's answers to the rows of `calib` and `val`, with the temperature of `calib`."""
    chosen = [n for n, row in enumerate(manifest.rows) if row.split in ("calib", "val")]
    rows = [manifest.rows[n] for n in chosen]
    logits = predict(trained.model, faces, rows=torch.tensor(chosen), device=device).numpy()
    labels = manifest.labels()[chosen]
    calib = np.array([row.split == "calib" for row in rows])
    return Predictions(
        paths=[row.path for row in rows],
        sources=[row.source for row in rows],
        splits=[row.split for row in rows],
        labels=labels,
        logits=logits,
        temperature=temperature_or_one(logits[calib], labels[calib]),
        manifest_sha256=manifest.sha256,
        protocol=trained.config.protocol,
        name=name,
    )


def write_results(
    trained: Trained, manifest: Manifest, faces: Tensor, device: str,
    history: list[dict[str, float]], folder: Path,
) -> None:  # fmt: skip
    """Trained weights → predictions.npz, metrics.json, plots and the bundle in `folder`.

    `faces` are all of the manifest's, `history` the lines of history.jsonl. Every process computes,
    the main one writes. The bundle comes last: it says that all is there.
    """
    found = _predictions(trained, manifest, faces, device, folder.name)
    if not is_main():
        return
    save_predictions(folder / "predictions.npz", found)
    write_json_atomic(folder / "metrics.json", run_metrics(found))
    plot_run(folder, history, found)
    export_bundle(trained, manifest, found, folder / "bundle")
