"""Which float bundle to quantize, and where the result goes."""

import re
from pathlib import Path

from contract.bundle import BUNDLE_FILE, Artifact, Bundle, open_bundle
from contract.errors import UserError


def _is_float(bundle: Bundle) -> bool:
    return all(artifact.precision != "int8" for artifact in bundle.info.artifacts)


def _is_teacher(bundle: Bundle) -> bool:
    return bundle.info.provenance.phase.startswith("teacher_")


def newest_float_bundle(runs: Path) -> Bundle:
    """The float bundle written last under `runs`, as the trainer leaves them, teachers aside.

    Raises `UserError` if there is none, or if one that is newer is damaged.
    """
    files = sorted(runs.glob(f"**/bundle/{BUNDLE_FILE}"), key=lambda file: file.stat().st_mtime)
    for file in reversed(files):
        bundle = open_bundle(file.parent)
        if _is_float(bundle) and not _is_teacher(bundle):
            return bundle
    raise UserError(
        f"no float bundle under {runs}/; train one with fer-trainer --phase student_ce, "
        "or name one with --model"
    )


def float_graph(bundle: Bundle) -> Artifact:
    """The ONNX graph of a float bundle. Raises `UserError` for a bundle that is not one."""
    if not _is_float(bundle):
        raise UserError(f"{bundle.folder} is quantized already; name its float bundle with --model")
    for artifact in bundle.info.artifacts:
        if artifact.format == "onnx":
            return artifact
    raise UserError(f"{bundle.folder} has no ONNX graph to quantize; export it again")


def default_out(bundle: Bundle) -> Path:
    """`bundles/<name>-int8`."""
    return Path("bundles") / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', bundle.info.name)}-int8"


def check_out(out: Path, bundle: Bundle) -> None:
    """Refuse, before any work is done, a place where the result could not be written."""
    if out.resolve() == bundle.folder.resolve():
        raise UserError(f"{out} is the float bundle itself; name another place with --out")
    if out.exists() and not (out / BUNDLE_FILE).is_file():
        raise UserError(f"{out} exists and is not a bundle; name another place with --out")
