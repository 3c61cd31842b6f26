"""`fer-edge evaluate`: a manifest through exactly the serving path, and every metric of it."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract import conformal, metrics
from contract.bundle import Bundle
from contract.command import Parser
from contract.errors import UserError
from contract.faces import Image, prepare_detection, prepare_face, read_image
from contract.files import write_json_atomic
from contract.manifest import SPLITS, Manifest, Row, read_manifest
from contract.measured import measured
from edge.bundles import bundle_to_run
from edge.cli import add_engine_flags, engine_overrides, result_file
from edge.detect import Detector, make_detector
from edge.offline.record import run_record
from edge.setup import cache_folder
from firmware_config.profile import load_profile
from runtime.choose import choose
from runtime.session import Session

BATCH = 8
CALIBRATING = ("calib", "val")
"""Splits conformal sets may be fitted on: the model has seen train, and test is held back."""


@dataclass(frozen=True)
class Predictions:
    """Row by row: the label, the calibrated probabilities, and the prediction (−1: face missed)."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int64]
    sources: tuple[str, ...]


def _load(manifest: Manifest, row: Row) -> Image:
    image = read_image(manifest.path(row))
    if image is None:
        raise UserError(
            f"{manifest.place(row)} cannot be decoded as an image; restore it or remove the row"
        )
    return image


def _face(image: Image, bundle: Bundle, detector: Detector | None) -> NDArray[np.uint8] | None:
    """The prepared face of an image: the image itself, or its largest detection (None: none)."""
    if detector is None:
        return prepare_face(image, bundle.info.input)
    frame = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    found = detector.detect(frame)
    if not found:
        return None
    largest = max(found, key=lambda detection: detection.box.w * detection.box.h)
    return prepare_detection(image, largest.box, bundle.info.input, detector.name)


def _batches(
    manifest: Manifest, bundle: Bundle, detector: Detector | None
) -> Iterator[tuple[list[int], list[NDArray[np.uint8]]]]:
    positions: list[int] = []
    faces: list[NDArray[np.uint8]] = []
    for position, row in enumerate(manifest.rows):
        face = _face(_load(manifest, row), bundle, detector)
        if face is None:
            continue
        positions.append(position)
        faces.append(face)
        if len(faces) == BATCH:
            yield positions, faces
            positions, faces = [], []
    if faces:
        yield positions, faces


def predict(
    manifest: Manifest, bundle: Bundle, session: Session, detector: Detector | None
) -> Predictions:
    """Every row of a manifest, with calibrated probabilities from the bundle's temperature.

    Raises `UserError` naming the row of an image that cannot be decoded.
    """
    count = len(manifest.rows)
    probabilities = np.zeros((count, len(bundle.info.expressions)))
    predicted = np.full(count, -1, np.int64)
    for positions, faces in _batches(manifest, bundle, detector):
        p = metrics.softmax(session.run(np.stack(faces)), bundle.info.temperature)
        probabilities[positions] = p
        predicted[positions] = p.argmax(axis=1)
    sources = tuple(row.source for row in manifest.rows)
    return Predictions(manifest.labels(), probabilities, predicted, sources)


def report(found: Predictions, temperature: float, protocol: str) -> dict[str, Any]:
    """All metrics, overall and by source."""
    return {
        "protocol": protocol,
        "temperature": temperature,
        **measured(found.labels, found.probabilities, found.predicted, found.sources),
    }


def _check_conformal(
    alpha: float | None, calib: Path | None, reported: Manifest
) -> Manifest | None:
    """The rows to fit conformal sets on, checked before any time is spent; None: no sets wanted.

    Raises `UserError` for one option without the other, an alpha that is none or too small for so
    few rows, a row of another split than `CALIBRATING`, and an image that is also reported on.
    """
    if alpha is None and calib is None:
        return None
    if alpha is None or calib is None:
        raise UserError(
            "--conformal and --conformal-calib go together: give the share of sets that may miss "
            "and the labelled images to fit them on"
        )
    try:
        need = conformal.least_rows(alpha)
    except ValueError:
        raise UserError(f"--conformal {alpha:g}: give a share between 0 and 1, as 0.1") from None
    manifest = read_manifest(calib)
    taken = {reported.path(row).resolve() for row in reported.rows}
    for row in manifest.rows:
        if row.split not in CALIBRATING:
            raise UserError(
                f"{manifest.place(row)} is a {row.split} row, and conformal sets are fitted on "
                f"{' or '.join(CALIBRATING)} rows; remove it"
            )
        if manifest.path(row).resolve() in taken:
            raise UserError(
                f"{manifest.place(row)} is also reported on, where its set would promise nothing; "
                "fit on other images"
            )
    if len(manifest.rows) < need:
        raise _too_few(alpha, manifest, len(manifest.rows))
    return manifest


def _too_few(alpha: float, manifest: Manifest, n: int) -> UserError:
    return UserError(
        f"--conformal {alpha:g}: {manifest.file} gives {n} rows to fit on and it takes at least "
        f"{conformal.least_rows(alpha)}; give more rows or a larger share"
    )


def conformal_report(
    fitted_on: Manifest, calib: Predictions, found: Predictions, alpha: float
) -> dict[str, Any]:
    """Split-conformal sets fitted on some predictions, and what they are like on others.

    Rows without a face have no set and take no part, in either. Raises `UserError` where no rows,
    or too few to fit on, are left.
    """
    seen, reported = calib.predicted >= 0, found.predicted >= 0
    try:
        quantile = conformal.fit_quantile(calib.labels[seen], calib.probabilities[seen], alpha)
    except ValueError:
        raise _too_few(alpha, fitted_on, int(seen.sum())) from None
    if not reported.any():
        raise UserError("no face was found in any image, so there are no conformal sets to report")
    sets = conformal.measure(found.labels[reported], found.probabilities[reported], quantile)
    return {
        "alpha": alpha,
        "quantile": quantile,
        "calib": {
            "file": str(fitted_on.file),
            "sha256": fitted_on.sha256,
            "n": len(calib.labels),
            "n_predicted": int(seen.sum()),
        },
        **sets.to_json(),
    }


def _with_precision(bundle: Bundle, precision: str) -> Bundle:
    """The bundle reduced to artifacts of one precision."""
    kept = [a for a in bundle.info.artifacts if a.precision == precision]
    if not kept:
        has = " ".join(dict.fromkeys(a.precision for a in bundle.info.artifacts))
        raise UserError(f"--precision {precision}: {bundle.folder} has only: {has}")
    info = bundle.info.model_copy(update={"artifacts": kept})
    return Bundle(bundle.folder, info, bundle.sha256)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-edge evaluate", description=__doc__)
    add = parser.add_argument
    add("--manifest", type=Path, required=True, metavar="CSV", help="labelled images")
    add("--split", choices=SPLITS, help="only the rows of this split")
    add("--detect", action="store_true", help="images are photos: find the face in them first")
    add("--protocol", default="argmax", help="how the labels were made; recorded only")
    add("--precision", choices=("int8", "fp16", "fp32"), help="only artifacts of this precision")
    add(
        "--conformal", type=float, metavar="ALPHA",
        help="also report split-conformal sets, of which at most this share misses the label",
    )  # fmt: skip
    add(
        "--conformal-calib", type=Path, metavar="CSV",
        help="labelled calib or val images that the sets are fitted on",
    )  # fmt: skip
    add("--json", type=result_file, required=True, metavar="OUT", help="where the metrics go")
    add_engine_flags(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    profile = load_profile(given.profile, engine_overrides(given))
    manifest = read_manifest(given.manifest)
    if given.split:
        manifest = manifest.select(given.split)
        if not manifest.rows:
            raise UserError(f"{given.manifest}: no rows of split '{given.split}'")
    calib = _check_conformal(given.conformal, given.conformal_calib, manifest)
    bundle = bundle_to_run(profile.runtime.bundle)
    if given.precision:
        bundle = _with_precision(bundle, given.precision)
    runtime = profile.runtime
    # A choice among fewer artifacts must not be remembered as the bundle's.
    cache = None if given.precision else cache_folder()
    chosen = choose(bundle, threads=runtime.threads, backend=runtime.backend, cache=cache)
    detector = make_detector(profile.detector.kind) if given.detect else None
    try:
        found = predict(manifest, bundle, chosen.session, detector)
        fitted = predict(calib, bundle, chosen.session, detector) if calib else None
    finally:
        chosen.session.close()
    sets = conformal_report(calib, fitted, found, given.conformal) if calib and fitted else None
    result = {
        "n": len(manifest.rows),
        **report(found, bundle.info.temperature, given.protocol),
        "manifest": {"file": str(given.manifest), "sha256": manifest.sha256, "split": given.split},
        "bundle": {"name": bundle.info.name, "sha256": bundle.sha256},
        "backend": chosen.session.backend,
        "precision": chosen.artifact.precision,
        "detector": detector.name if detector else None,
        **({"conformal": sets} if sets else {}),
        "run": run_record("fer-edge evaluate", arguments, runtime.threads),
    }
    write_json_atomic(given.json, result)
    missed = int((found.predicted < 0).sum())
    shown = ("accuracy", "macro_f1", "ece", "nll", "brier")
    values = "  ".join(f"{name} {result[name]:.4f}" for name in shown if name in result)
    print(
        f"n {result['n']} ({given.protocol})  {values}"
        + (f"  no face found in {missed}" if detector else "")
    )
    if sets:
        print(
            f"conformal sets, alpha {sets['alpha']:g}, fitted on {sets['calib']['n_predicted']}: "
            f"coverage {sets['coverage']:.4f}  mean size {sets['mean_set_size']:.2f}  "
            f"singletons {sets['singletons']:.1%}"
        )
    return 0
