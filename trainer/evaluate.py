"""A model on labelled rows: corrected on one split, measured on another, source by source."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.intervals import Interval
from contract.manifest import Manifest
from trainer.data.cache import packed_faces
from trainer.figures import by_source
from trainer.predictions import Predictions
from trainer.reliability import Correction, Scaling, fit, one_temperature
from trainer.targets import Target

NO_PROTOCOL = "not stated"

Temperature = Scaling | Literal["stored"]


@dataclass(frozen=True)
class Settings:
    """What to measure on (`split`), and which correction to fit on `fit_on` first.

    `stored` takes the model's own temperature and fits none. An empty `protocol` means that of the
    model's training data, where they are the manifest given.
    """

    split: str = "val"
    fit_on: str = "calib"
    temperature: Temperature = "single"
    logit_adjustment: bool = False
    protocol: str = ""
    seed: int = 1337

    @property
    def fits(self) -> bool:
        """Whether anything is fitted."""
        return self.temperature in ("single", "per_class") or self.logit_adjustment


@dataclass(frozen=True)
class Evaluation:
    """Rows of the measured split and, where something was fitted, of `fit_on`; the correction."""

    target: Target
    manifest: Manifest
    settings: Settings
    predictions: Predictions
    correction: Correction


def _protocol(target: Target, manifest: Manifest, settings: Settings) -> str:
    known = target.protocol if target.trained_on == manifest.sha256 else ""
    return settings.protocol or known or NO_PROTOCOL


def _require(manifest: Manifest, split: str, instead: str) -> None:
    if not any(row.split == split for row in manifest.rows):
        raise UserError(f"{manifest.file}: no rows of split '{split}'; {instead}")


def _correction(
    target: Target, manifest: Manifest, found: Predictions, settings: Settings
) -> Correction:
    scaling: Scaling = "none" if settings.temperature == "stored" else settings.temperature
    kept = Correction()
    if settings.temperature == "stored":
        if target.temperature is None:
            raise UserError(f"{target.name} has no temperature of its own; use --temperature none")
        kept = one_temperature(target.temperature)
    if not settings.fits:
        return kept
    rows = found.select(settings.fit_on)
    train = manifest.select("train").labels() if settings.logit_adjustment else None
    try:
        made = fit(kept.apply(rows.logits), rows.labels, scaling, train)
    except ValueError as error:
        raise UserError(
            f"{manifest.file}: split '{settings.fit_on}': {error}; fit on more rows, or "
            "use --temperature stored or none and no --logit-adjustment"
        ) from None
    both = zip(kept.temperatures, made.temperatures, strict=True)
    return Correction(tuple(own * fitted for own, fitted in both), made.tau, made.prior)


def evaluate(target: Target, manifest: Manifest, settings: Settings) -> Evaluation:
    """A model's answers to the rows of a manifest, and the correction fitted on them.

    Raises `UserError` for a split without rows, for fitting and measuring on the same one, and
    where no correction suits the rows.
    """
    wanted = [settings.split]
    _require(manifest, settings.split, "name another with --split")
    if settings.fits:
        if settings.fit_on == settings.split:
            raise UserError(
                f"--fit-on {settings.fit_on} is the split to measure on; a correction is judged on "
                "rows it was not fitted on"
            )
        _require(
            manifest, settings.fit_on,
            "nothing can be fitted there; use --temperature stored or none",
        )  # fmt: skip
        wanted.append(settings.fit_on)
    if settings.logit_adjustment:
        _require(manifest, "train", "--logit-adjustment needs the shares of its classes")
    chosen = np.array([n for n, row in enumerate(manifest.rows) if row.split in wanted])
    rows = [manifest.rows[n] for n in chosen]
    found = Predictions(
        paths=[row.path for row in rows],
        sources=[row.source for row in rows],
        splits=[row.split for row in rows],
        labels=manifest.labels()[chosen],
        logits=target.logits(packed_faces(manifest, target.face)[chosen]),
        temperature=1.0,
        manifest_sha256=manifest.sha256,
        protocol=_protocol(target, manifest, settings),
        name=target.name,
    )
    if not np.isfinite(found.logits).all():
        raise UserError(f"{target.name}: it answers with numbers that are not finite; train anew")
    correction = _correction(target, manifest, found, settings)
    return Evaluation(target, manifest, settings, found, correction)


def result(done: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON: what was measured on which rows, with 95 % intervals."""
    target, settings = done.target, done.settings
    measured = done.predictions.select(settings.split)
    return {
        "target": {
            "name": target.name,
            "kind": target.kind,
            "sha256": target.sha256,
            "runs_on": target.runs_on,
        },
        "manifest": {"file": str(done.manifest.file), "sha256": done.manifest.sha256},
        "split": settings.split,
        "fit_on": settings.fit_on if settings.fits else None,
        "temperature_mode": settings.temperature,
        "correction": done.correction.to_json(),
        "bootstrap_seed": settings.seed,
        **by_source(measured, done.correction.probabilities(measured.logits), settings.seed),
    }


def corrected_predictions(done: Evaluation) -> Predictions:
    """The rows to keep in a file: plain logits with the one temperature, if the correction is that;
    otherwise corrected logits with temperature 1."""
    p, temperature = done.predictions, done.correction.temperature
    logits = p.logits
    if temperature is None:
        logits, temperature = done.correction.apply(logits).astype(np.float32), 1.0
    return Predictions(
        p.paths, p.sources, p.splits, p.labels, logits, temperature, p.manifest_sha256, p.protocol,
        p.name,
    )  # fmt: skip


_SHOWN = {
    "accuracy": ("scaled", "accuracy"),
    "macro_f1": ("scaled", "macro_f1"),
    "nll": ("scaled", "nll"),
    "brier": ("scaled", "brier"),
    "ece_raw": ("raw", "ece"),
    "ece_scaled": ("scaled", "ece"),
}


def _cell(value: float, interval: Interval) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _column(block: dict[str, Any]) -> list[str]:
    found = block["intervals"]
    shown = [_cell(block[part][key], found[name]) for name, (part, key) in _SHOWN.items()]
    by_class = block["scaled"]["per_class_f1"]
    return [
        str(block["n"]),
        *shown,
        *(_cell(by_class[name], found[f"f1_{name}"]) for name in EXPRESSIONS),
    ]


def _correction_text(made: dict[str, Any]) -> str:
    fitted, how = made["correction"], made["temperature_mode"]
    where = f" (fitted on {made['fit_on']})" if made["fit_on"] else ""
    if how == "per_class":
        text = "T " + " ".join(f"{name} {t:.3f}" for name, t in fitted["temperatures"].items())
    else:
        text = f"T {next(iter(fitted['temperatures'].values())):.3f}"
        text += f" ({how})" if how in ("stored", "none") else ""
    return text + (f", tau {fitted['tau']:.2f}" if fitted["prior"] else "") + where


def table(made: dict[str, Any]) -> str:
    """The text form of a `result`: a row per figure, a column per source and one for the total."""
    blocks = dict(made["by_source"])
    if len(blocks) > 1:
        blocks["total"] = made
    names = ["n", *_SHOWN, *(f"f1_{name}" for name in EXPRESSIONS)]
    columns = [_column(block) for block in blocks.values()]
    width = max(22, *(len(name) + 2 for name in blocks))
    target, manifest = made["target"], made["manifest"]
    lines = [
        f"{target['name']}  ({target['kind']}, {target['runs_on']})",
        f"  {manifest['file']} {manifest['sha256'][:12]}  split {made['split']}  "
        f"protocol {made['protocol']}",
        f"  {_correction_text(made)}",
        " " * 14 + "".join(f"{name:>{width}}" for name in blocks),
    ]
    for number, name in enumerate(names):
        cells = "".join(f"{column[number]:>{width}}" for column in columns)
        lines.append(f"  {name:<12}{cells}")
    return "\n".join(lines)
