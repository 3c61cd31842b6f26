"""What a finished run leaves: predictions, metrics, plots and the float bundle."""

from pathlib import Path

import numpy as np
import torch

from contract import metrics
from contract.files import write_json_atomic
from contract.manifest import Manifest
from trainer.checkpoint import load_weights
from trainer.distributed import is_main
from trainer.engine import Trainer
from trainer.export import export_bundle
from trainer.figures import run_metrics
from trainer.plots import plot_run
from trainer.predict import predict
from trainer.predictions import Predictions, save_predictions


def _predictions(trainer: Trainer, manifest: Manifest, name: str) -> Predictions:
    """The network's answers to the rows of `calib` and `val`, with the temperature of `calib`."""
    chosen = [n for n, row in enumerate(manifest.rows) if row.split in ("calib", "val")]
    rows = [manifest.rows[n] for n in chosen]
    logits = predict(
        trainer.model, trainer.data.faces, rows=torch.tensor(chosen), device=trainer.device.name
    ).numpy()
    labels = manifest.labels()[chosen]
    calib = np.array([row.split == "calib" for row in rows])
    try:
        temperature = metrics.fit_temperature(logits[calib], labels[calib])
    except ValueError:  # every row of a small or easy calib split may be right
        temperature = 1.0
    return Predictions(
        paths=[row.path for row in rows],
        sources=[row.source for row in rows],
        splits=[row.split for row in rows],
        labels=labels,
        logits=logits,
        temperature=temperature,
        manifest_sha256=manifest.sha256,
        protocol=trainer.config.protocol,
        name=name,
    )


def write_results(trainer: Trainer, manifest: Manifest, folder: Path) -> None:
    """Best averaged weights → predictions.npz, metrics.json, plots and the bundle in `folder`.

    Every process computes, the main one writes. The bundle comes last: it says that all is there.
    """
    about = load_weights(trainer.best_file, trainer.model)
    found = _predictions(trainer, manifest, folder.name)
    if not is_main():
        return
    save_predictions(folder / "predictions.npz", found)
    write_json_atomic(folder / "metrics.json", run_metrics(found))
    plot_run(folder, trainer.history.lines(), found)
    export_bundle(trainer, about, manifest, found, folder / "bundle")
