"""A float bundle and a list of labelled images → an INT8 bundle, if it passes the gate."""

import json
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from contract.bundle import Artifact, Bundle, artifact_of, write_bundle
from contract.errors import UserError
from contract.manifest import Manifest
from contract.metrics import compute, fit_temperature, softmax
from contract.provenance import commit_of_this_project
from quantize.calibration import check_rows, divide, load_faces, rows_hash
from quantize.card import int8_section
from quantize.gate import Bounds, Comparison, Measured, broken_bounds, compare, table
from quantize.openvino_int8 import quantize_openvino, require_nncf
from quantize.source import float_graph
from runtime import golden
from runtime.errors import SessionError, UnavailableError
from runtime.machine import cpu_model, library_versions
from runtime.session import BACKENDS, Session, open_session
from runtime.timing import interleaved_ms

BATCH = 32
TIMING_ROUNDS = 20
TIMING_BUDGET_S = 3.0
GOLDEN_LEAST = 0.02
GOLDEN_MOST = 0.1
TEXTS = (".md", ".txt")
CARD = "model_card.md"


@dataclass(frozen=True)
class Options:
    """The seed that divides the rows, the number of inference threads, the gate's bounds.

    The INT8 model is also measured on the rows of `report`, whose labels were made by `protocol`.
    """

    seed: int
    threads: int
    bounds: Bounds
    report: Manifest | None = None
    protocol: str = "argmax"


@dataclass(frozen=True)
class Part:
    """One part of `--calib`: row numbers, labels `N`, prepared faces `N×H×W×C`."""

    rows: tuple[int, ...]
    splits: tuple[str, ...]
    labels: NDArray[np.int64]
    faces: NDArray[np.uint8]
    rows_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Which rows these were."""
        return {"n": len(self.rows), "splits": list(self.splits), "rows_sha256": self.rows_sha256}


def _part(manifest: Manifest, rows: tuple[int, ...], bundle: Bundle, purpose: str) -> Part:
    return Part(
        rows=rows,
        splits=tuple(sorted({manifest.rows[number].split for number in rows})),
        labels=manifest.labels()[list(rows)],
        faces=load_faces(manifest, rows, bundle.info.input, purpose),
        rows_sha256=rows_hash(manifest, rows),
    )


def _make_files(graph: Path, ranges: Part, folder: Path) -> tuple[list[Path], list[Path]]:
    """INT8 IR, and the float graph with half-precision weights, written into `folder`."""
    # The quantize extra may be absent until `require_nncf` has said so.
    import onnx

    from quantize.onnx_fp16 import with_fp16_weights

    int8 = quantize_openvino(graph, ranges.faces, folder / "student_int8.xml")
    half = folder / "student.onnx"
    half.write_bytes(with_fp16_weights(onnx.load(graph)).SerializeToString())
    return int8, [half]


def _logits(session: Session, part: Part, purpose: str) -> NDArray[np.float32]:
    starts = tqdm(range(0, len(part.faces), BATCH), desc=purpose, unit="batch", disable=None)
    return np.concatenate([session.run(part.faces[start : start + BATCH]) for start in starts])


def _temperature(source: Bundle, ranges: Part, int8: Session) -> tuple[float, str]:
    """The INT8 model's temperature and where it came from.

    Fitted on the ranges part, but only if all of it is calib rows: val only reports.
    """
    if ranges.splits != ("calib",):
        return source.info.temperature, "the float bundle's, as --calib is not all calib rows"
    try:
        fitted = fit_temperature(_logits(int8, ranges, "temperature"), ranges.labels)
    except ValueError as error:
        return source.info.temperature, f"the float bundle's: {error}"
    return fitted, "fitted on the ranges part"


def _tolerance(bundle: Bundle, artifact: Artifact, threads: int) -> tuple[float, float]:
    """The artifact's worst golden error over the runtimes here, and the tolerance it gets.

    Three times the error, as headroom for other CPUs and library versions, within limits. Raises
    `UserError` where the error itself is beyond them: the check could tell nothing.
    """
    worst = 0.0
    for backend in BACKENDS:
        try:
            session = open_session(bundle, artifact, backend, threads)
        except UnavailableError:
            continue
        worst = max(worst, golden.measure(session, bundle))
        session.close()
    if worst > GOLDEN_MOST:
        raise UserError(
            f"{artifact.file}: mean |Δp| on the golden inputs is {worst:.3f}, more than "
            f"{GOLDEN_MOST}, so a start-up check could tell nothing; give more varied rows with "
            "--calib"
        )
    return worst, min(GOLDEN_MOST, max(GOLDEN_LEAST, 3 * worst))


@dataclass(frozen=True)
class _Opened:
    bundle: Bundle
    artifact: Artifact
    session: Session

    def measured(self, gate: Part, milliseconds: list[float]) -> Measured:
        files = [self.bundle.folder / name for name in self.artifact.sha256]
        return Measured(
            logits=_logits(self.session, gate, f"gate, {self.artifact.precision}"),
            temperature=self.bundle.info.temperature,
            size_bytes=sum(file.stat().st_size for file in files),
            milliseconds=milliseconds,
        )


def _compare(original: _Opened, int8: _Opened, gate: Part) -> Comparison:
    times = interleaved_ms(
        [original.session, int8.session], gate.faces[:1], TIMING_ROUNDS, budget_s=TIMING_BUDGET_S
    )
    return compare(gate.labels, original.measured(gate, times[0]), int8.measured(gate, times[1]))


def _with(bundle: Bundle, **changes: Any) -> Bundle:
    return Bundle(bundle.folder, bundle.info.model_copy(update=changes), bundle.sha256)


def _require_passed(found: Comparison, bounds: Bounds) -> None:
    broken = broken_bounds(found, bounds)
    if broken:
        raise UserError(
            f"the INT8 model did not pass the gate, no bundle is written: {'; '.join(broken)}; "
            "give more rows, from the camera's conditions, with --calib, or loosen the bound "
            "knowingly"
        )


def _report(
    source: Bundle, manifest: Manifest, ranges: Part, gate: Part, found: Comparison,
    options: Options, temperature: dict[str, Any], golden_errors: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    return {
        **found.to_json(),
        "split": "+".join(gate.splits),
        "protocol": "labels of the manifest",
        "bounds": asdict(options.bounds),
        "manifest_sha256": manifest.sha256,
        "gate_rows": gate.to_json(),
        "ranges_rows": ranges.to_json(),
        "division_seed": options.seed,
        "temperature": temperature,
        "golden_errors": golden_errors,
        "float_bundle": source.sha256,
        "machine": {
            "cpu": cpu_model(),
            "threads": options.threads,
            "libraries": {**library_versions(), "nncf": version("nncf")},
        },
    }


def _reported(bundle: Bundle, session: Session, options: Options) -> dict[str, Any] | None:
    """All metrics of the INT8 model on the rows it is only reported on."""
    manifest = options.report
    if manifest is None:
        return None
    part = _part(manifest, tuple(range(len(manifest.rows))), bundle, "images to report on")
    p = softmax(_logits(session, part, "report"), bundle.info.temperature)
    return {
        "split": "+".join(part.splits),
        "protocol": options.protocol,
        "precision": "int8",
        "manifest_sha256": manifest.sha256,
        **compute(part.labels, p, p.argmax(axis=1)).to_json(),
    }


def _quantize(
    source: Bundle, manifest: Manifest, ranges: Part, gate: Part, out: Path, options: Options,
    work: Path,
) -> Comparison:  # fmt: skip
    graph, threads = float_graph(source), options.threads
    int8_files, half_files = _make_files(source.path(graph), ranges, work)
    int8 = artifact_of(int8_files, "openvino", "int8", GOLDEN_MOST)
    half = artifact_of(half_files, "onnx", "fp16", GOLDEN_MOST)
    draft = _with(Bundle(work, source.info, ""), artifacts=[int8, half])

    float_session = open_session(source, graph, "openvino", threads)
    int8_session = open_session(draft, int8, "openvino", threads)
    temperature, told = _temperature(source, ranges, int8_session)
    draft = _with(draft, temperature=temperature)
    found = _compare(
        _Opened(source, graph, float_session), _Opened(draft, int8, int8_session), gate
    )
    float_session.close()
    print(table(found))
    _require_passed(found, options.bounds)
    reported = _reported(draft, int8_session, options)
    int8_session.close()

    checked: list[Artifact] = []
    golden_errors: dict[str, float] = {}
    for artifact in draft.info.artifacts:
        golden_errors[artifact.file], tolerance = _tolerance(draft, artifact, threads)
        checked.append(artifact.model_copy(update={"tolerance": tolerance}))
    report = _report(
        source, manifest, ranges, gate, found, options,
        {"value": temperature, "from": told}, golden_errors,
    )  # fmt: skip
    made = source.info.provenance
    provenance = made.model_copy(
        update={
            "commit": commit_of_this_project(),
            "parent": source.sha256,
            "manifests": {**made.manifests, "quantize": manifest.sha256},
            "detail": {**made.detail, "float_commit": made.commit, "quantize": report},
        }
    )
    final = _with(
        draft,
        name=f"{source.info.name}-int8"[:100],
        artifacts=checked,
        metrics={
            **source.info.metrics,
            "int8": report,
            **({"int8_report": reported} if reported else {}),
        },
        provenance=provenance,
    )
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted(source.folder.iterdir())
        if path.suffix in TEXTS and path.is_file()
    }
    if CARD in texts:
        texts[CARD] += int8_section(report, reported)
    texts["report.json"] = json.dumps(report, indent=2, allow_nan=False) + "\n"
    write_bundle(out, final.info, [*int8_files, *half_files], texts)
    return found


def quantize_bundle(source: Bundle, manifest: Manifest, out: Path, options: Options) -> Comparison:
    """Quantize a float bundle and write the INT8 bundle at `out`, replacing a bundle there.

    The result holds the INT8 OpenVINO IR first and the float ONNX with half-precision weights last,
    the float bundle's golden logits with tolerances measured here, and the gate's figures in
    `metrics["int8"]` and `report.json`. Prints what it works on, and the gate's table. Raises
    `UserError`, and writes nothing, for rows or a bundle that will not do and for a gate that is
    not passed.
    """
    float_graph(source)
    check_rows(manifest)
    require_nncf()
    division = divide(manifest.rows, options.seed)
    print(
        f"quantizing {source.folder} with {manifest.file}: {len(division.ranges)} rows for ranges, "
        f"{len(division.gate)} for the gate"
    )
    ranges = _part(manifest, division.ranges, source, "images for ranges")
    gate = _part(manifest, division.gate, source, "images for the gate")
    with tempfile.TemporaryDirectory(prefix="fer-quantize.") as work:
        try:
            return _quantize(source, manifest, ranges, gate, out, options, Path(work))
        except SessionError as error:
            raise UserError(f"{source.folder}: {error}; export it again") from None
