"""`fer-trainer inspect`: where a checkpoint, a run or a bundle comes from."""

import argparse
import json
from pathlib import Path
from typing import Any

from contract.bundle import Bundle, open_bundle
from contract.command import Parser
from trainer.checkpoint import Trained, open_trained
from trainer.config import TrainConfig
from trainer.history import History
from trainer.predictions import load_predictions
from trainer.targets import kind_of


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer inspect",
        description="Print where a model comes from: phase, seed, epoch, commit, data, parents.",
    )
    parser.add_argument(
        "path", type=Path, metavar="PATH",
        help="a checkpoint file, a run folder (its best checkpoint), or a bundle folder",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, with the whole config")
    return parser


def _settings(config: TrainConfig) -> dict[str, Any]:
    """What a reader asks about first."""
    optim, distill, arcface = config.optim, config.distill, config.model.arcface
    learnt: dict[str, Any] = {}
    if arcface is not None:
        learnt["arcface"] = {"margin": arcface.margin, "scale": arcface.scale}
    if distill.method != "none":
        always = {"method": distill.method, "temperature": distill.temperature}
        changed = distill.model_dump(mode="json", exclude_defaults=True)
        learnt["distill"] = always | {"alpha": distill.alpha} | changed
    return {
        "network": config.model.backbone,
        "input": f"{config.input.size}×{config.input.size} {config.input.colour}"
        + (", CLAHE" if config.input.clahe else ""),
        "protocol": config.protocol,
        "target": config.target.kind,
        **learnt,
        "epochs": optim.epochs,
        "batch": optim.batch_size * optim.accum_steps,
        "lr": f"{optim.lr:g} → {optim.min_lr:g}",
        "weight_decay": optim.weight_decay,
    }


def _of_checkpoint(trained: Trained) -> dict[str, Any]:
    parameters = sum(each.numel() for each in trained.model.parameters())
    said = ("config", "epoch", "phase", "seed")  # each in a form of its own below
    about = {key: value for key, value in trained.about.items() if key not in said}
    return {
        "checkpoint": str(trained.file),
        "sha256": trained.sha256,
        "size_bytes": trained.file.stat().st_size,
        "parameters": parameters,
        "phase": trained.config.phase,
        "seed": trained.config.seed,
        "epoch": int(trained.about["epoch"]) + 1,
        # Commit, hashes of manifest, starting weights and softlabels: whatever was recorded.
        **about,
        "settings": _settings(trained.config),
        "config": trained.config.model_dump(mode="json"),
    }


def _of_run(folder: Path) -> dict[str, Any]:
    found = _of_checkpoint(open_trained(folder))
    predictions = folder / "predictions.npz"
    stored = load_predictions(predictions) if predictions.is_file() else None
    return {
        "run": str(folder),
        "finished": stored is not None,
        "epochs_done": len(History(folder).lines()),
        **({"temperature": stored.temperature} if stored else {}),
        **found,
    }


def _of_bundle(bundle: Bundle) -> dict[str, Any]:
    info, made = bundle.info, bundle.info.provenance
    artifacts = [
        {
            "file": artifact.file,
            "precision": artifact.precision,
            "format": artifact.format,
            "size_bytes": sum((bundle.folder / name).stat().st_size for name in artifact.sha256),
            "sha256": artifact.sha256[artifact.file],
        }
        for artifact in info.artifacts
    ]
    figures = {
        split: {key: values[key] for key in ("n", "protocol", "accuracy", "macro_f1", "ece")
                if key in values}
        for split, values in info.metrics.items()
        if isinstance(values, dict)
    }  # fmt: skip
    return {
        "bundle": str(bundle.folder),
        "name": info.name,
        "sha256": bundle.sha256,
        "phase": made.phase,
        "seed": made.seed,
        **{key: made.detail[key] for key in ("epoch", "inputs") if key in made.detail},
        "commit": made.commit,
        "parent": made.parent,
        "manifests": made.manifests,
        "input": info.input.model_dump(mode="json"),
        "temperature": info.temperature,
        "artifacts": artifacts,
        "metrics": figures,
        "detail": made.detail,
    }


def describe(path: Path) -> dict[str, Any]:
    """Provenance of what stands at a path, as JSON values.

    Raises `UserError` where nothing does, or it is damaged.
    """
    kind = kind_of(path)
    if kind == "bundle":
        return _of_bundle(open_bundle(path))
    return _of_run(path) if kind == "run" else _of_checkpoint(open_trained(path))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"{k} ({_text(v)})" if isinstance(v, dict) else f"{k} {_text(v)}"
                 for k, v in value.items()]  # fmt: skip
        return ", ".join(parts)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(found: dict[str, Any]) -> list[str]:
    pairs = [
        (key, each)
        for key, value in found.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    return [f"{key:<16} {_text(each)}" for key, each in pairs if each not in ("", {})]


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    found = describe(given.path)
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        brief = {key: value for key, value in found.items() if key not in ("config", "detail")}
        print("\n".join(_lines(brief)))
    return 0
