"""A float bundle and a list of labelled images → an INT8 bundle, if it passes the gate."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Artifact, Bundle, artifact_of, write_bundle
from contract.errors import UserError
from contract.manifest import Manifest
from contract.measured import measured
from contract.metrics import accuracy, softmax
from contract.provenance import commit_of_this_project
from quantize import confidences
from quantize.calibration import Part, check_rows, divide, read_part
from quantize.candidates import Target
from quantize.card import int8_section
from quantize.confidences import Confidences
from quantize.gate import PORTABILITY, Answers, Bounds, judge
from quantize.openvino_int8 import require_nncf
from quantize.plots import draw, require_matplotlib
from quantize.report import (
    PICTURE_FILE,
    Judged,
    Portability,
    Reference,
    Report,
    Rows,
    report_texts,
)
from quantize.search import Searched, Setting, backends_of, logits_of, search
from quantize.source import float_graph
from runtime import golden
from runtime.errors import SessionError, UnavailableError
from runtime.machine import cpu_model, library_versions
from runtime.session import BACKENDS, Session, open_session

GOLDEN_LEAST = 0.02
GOLDEN_MOST = 0.1
TEXTS = (".md", ".txt")
CARD = "model_card.md"


@dataclass(frozen=True)
class Options:
    """How to quantize.

    `seed` divides the rows; `waive` are names of bounds; without `speed` nothing is timed; `quick`
    tries one candidate a runtime. The INT8 model is also measured on the rows of `report`, whose
    labels were made by `protocol`.
    """

    seed: int
    threads: int
    bounds: Bounds
    waive: frozenset[str] = frozenset()
    speed: bool = True
    quick: bool = False
    target: Target = "cpu"
    report: Manifest | None = None
    protocol: str = "argmax"


def _float16(graph: Path, folder: Path) -> Path:
    """The float graph with half-precision weights, written into `folder`."""
    # The quantize extra may be absent until `require_nncf` has said so.
    import onnx

    from quantize.onnx_fp16 import with_fp16_weights

    file = folder / "student.onnx"
    file.write_bytes(with_fp16_weights(onnx.load(graph)).SerializeToString())
    return file


def _tolerance(
    bundle: Bundle, artifact: Artifact, threads: int, target: Target
) -> tuple[float, float]:
    """The artifact's worst golden error over the runtimes here, and the tolerance it gets.

    Three times the error, as headroom for other CPUs and library versions, within limits. Raises
    `UserError` where the error itself is beyond them: the check could tell nothing. Not for a
    Jetson, whose eight-bit weights make sums overflow on a CPU without VNNI here and not there.
    """
    worst = 0.0
    for backend in BACKENDS:
        try:
            session = open_session(bundle, artifact, backend, threads)
        except UnavailableError:
            continue
        worst = max(worst, golden.measure(session, bundle))
        session.close()
    if worst > GOLDEN_MOST and target == "cpu":
        raise UserError(
            f"{artifact.file}: mean |Δp| on the golden inputs is {worst:.3f}, more than "
            f"{GOLDEN_MOST}, so a start-up check could tell nothing; give more varied rows with "
            "--calib"
        )
    return worst, min(GOLDEN_MOST, max(GOLDEN_LEAST, 3 * worst))


def _with(bundle: Bundle, **changes: Any) -> Bundle:
    return Bundle(bundle.folder, bundle.info.model_copy(update=changes), bundle.sha256)


def _confidences(
    source: Bundle, parts: Sequence[Part], answers: Sequence[NDArray[np.float32]]
) -> Confidences:
    """Temperature and thresholds of the INT8 model from each artifact's logits of these parts.

    A bundle has one temperature, so it is fitted on what all artifacts say, the first one's
    thresholds are taken; but only if all rows are calib rows: val only reports. Else the float
    bundle's values stay.
    """
    labels = np.concatenate([part.labels for part in parts])
    kept = source.info.temperature
    if any(part.splits != ("calib",) for part in parts):
        temperature, told = (
            kept,
            "the float bundle's, and so are its thresholds: --calib is not all calib rows",
        )
    else:
        temperature, told = confidences.temperature_of(
            np.concatenate(answers), np.tile(labels, len(answers)), kept
        )
    return confidences.fit(answers[0], labels, temperature, told, source.info.abstain_threshold)


def _judged(found: Sequence[Searched], setting: Setting, temperature: float) -> list[Judged]:
    """The gate of each kept artifact at the temperature the bundle will have."""
    return [
        Judged(
            each.best.artifact.file,
            each.backend,
            judge(
                setting.gate.labels, each.float_answers,
                Answers(each.best.gate_logits, temperature),
                sum((setting.draft.folder / n).stat().st_size for n in each.best.artifact.sha256),
                each.best.rounds, setting.bounds, setting.waive,
            ),
        )
        for each in found
    ]  # fmt: skip


def _require_passed(judged: Sequence[Judged]) -> None:
    broken = [
        f"{each.file} on {each.backend}: {phrase}"
        for each in judged
        for phrase in each.gate.broken()
    ]
    if broken:
        raise UserError(
            f"the INT8 model did not pass the gate, no bundle is written: {'; '.join(broken)}; "
            "or waive a bound knowingly with --allow NAME"
        )


def _require_portable(checked: Sequence[Portability], waive: frozenset[str]) -> None:
    for each in checked:
        if each.status == "fail" and PORTABILITY not in waive:
            moved = "" if each.dp_max is None else f"|Δp| up to {each.dp_max:.3f}"
            raise UserError(
                f"{each.artifact} answers otherwise on {each.machine} "
                f"({', '.join(t for t in (moved, each.detail) if t)}), no bundle is written; try "
                "other rows with --calib, or waive it knowingly with --allow portability"
            )


def _rows(part: Part) -> Rows:
    return Rows(len(part.rows), part.splits, part.rows_sha256)


def _references(found: Sequence[Searched], setting: Setting) -> tuple[Reference, ...]:
    size = setting.source.path(setting.graph).stat().st_size / 1e6
    labels = setting.gate.labels
    return tuple(
        Reference(
            each.backend, setting.graph.precision,
            accuracy(labels, each.float_answers.logits.argmax(axis=1)),
            size, each.best.gate.original.latency_ms,
        )
        for each in found
    )  # fmt: skip


def _reported(bundle: Bundle, session: Session, options: Options) -> dict[str, Any] | None:
    """All metrics of the INT8 model on the rows it is only reported on."""
    manifest = options.report
    if manifest is None:
        return None
    rows = range(len(manifest.rows))
    part = read_part(manifest, rows, bundle.info.input, "images to report on")
    p = softmax(logits_of(session, part.faces, "report"), bundle.info.temperature)
    return {
        "split": "+".join(part.splits),
        "protocol": options.protocol,
        "precision": "int8",
        "manifest_sha256": manifest.sha256,
        **measured(part.labels, p, p.argmax(axis=1), [row.source for row in manifest.rows]),
    }


def _machine(threads: int) -> dict[str, Any]:
    libraries = {**library_versions(), "nncf": version("nncf"), "onnx": version("onnx")}
    return {"cpu": cpu_model(), "threads": threads, "libraries": libraries}


def _draft(setting: Setting, found: Sequence[Searched], fitted: Confidences) -> Bundle:
    """The bundle as it will be, in the work folder, with tolerances yet to be measured."""
    half = artifact_of(
        [_float16(setting.source.path(setting.graph), setting.draft.folder)],
        "onnx", "fp16", GOLDEN_MOST,
    )  # fmt: skip
    changes: dict[str, Any] = {
        "artifacts": [*(each.best.artifact for each in found), half],
        "temperature": fitted.temperature,
    }
    # Thresholds too are fitted on calib rows or not at all.
    if setting.ranges.splits == setting.gate.splits == ("calib",):
        changes["abstain_threshold"] = fitted.abstain_threshold
        changes["class_thresholds"] = fitted.class_thresholds
    return _with(setting.draft, **changes)


def _measured(draft: Bundle, threads: int, target: Target) -> tuple[Bundle, dict[str, float]]:
    """The draft with a tolerance for each artifact, and the golden errors they rest on."""
    artifacts: list[Artifact] = []
    errors: dict[str, float] = {}
    for artifact in draft.info.artifacts:
        errors[artifact.file], tolerance = _tolerance(draft, artifact, threads, target)
        artifacts.append(artifact.model_copy(update={"tolerance": tolerance}))
    return _with(draft, artifacts=artifacts), errors


def _write(
    draft: Bundle, report: Report, reported: dict[str, Any] | None, manifest: Manifest,
    source: Bundle, out: Path,
) -> None:  # fmt: skip
    record = report.to_json()
    made = source.info.provenance
    provenance = made.model_copy(
        update={
            "commit": commit_of_this_project(),
            "parent": source.sha256,
            "manifests": {**made.manifests, "quantize": manifest.sha256},
            "detail": {**made.detail, "float_commit": made.commit, "quantize": record},
        }
    )
    metrics = {**source.info.metrics, **({"int8_report": reported} if reported else {})}
    final = _with(
        draft, name=f"{source.info.name}-int8"[:100], metrics=metrics, provenance=provenance
    )
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted(source.folder.iterdir())
        if path.suffix in TEXTS and path.is_file()
    }
    if CARD in texts:
        texts[CARD] += int8_section(report, reported)
    texts |= report_texts(report)
    picture = draft.folder / PICTURE_FILE
    draw(report, picture)
    files = [draft.folder / name for each in draft.info.artifacts for name in each.sha256]
    write_bundle(out, final.info, [*files, picture], texts)


def _quantize(setting: Setting, manifest: Manifest, out: Path, options: Options) -> Report:
    found = [search(backend, setting) for backend in backends_of(options.target)]
    bests = [each.best for each in found]
    held_out = _confidences(setting.source, [setting.ranges], [b.ranges_logits for b in bests])
    judged = _judged(found, setting, held_out.temperature)
    for each in judged:
        print(f"{each.file} on {each.backend}:\n{each.gate.table()}")
    _require_passed(judged)
    # Judged on rows they were not fitted on; served are those of all rows, twice as many.
    fitted = _confidences(
        setting.source, [setting.ranges, setting.gate],
        [np.concatenate([b.ranges_logits, b.gate_logits]) for b in bests],
    )  # fmt: skip
    draft = _draft(setting, found, fitted)
    session = open_session(draft, draft.info.artifacts[0], found[0].backend, options.threads)
    reported = _reported(draft, session, options)
    session.close()
    draft, errors = _measured(draft, options.threads, options.target)
    checked = tuple(each.best.portability for each in found if each.best.portability)
    _require_portable(checked, options.waive)
    report = Report(
        source={"name": setting.source.info.name, "sha256": setting.source.sha256},
        manifest_sha256=manifest.sha256,
        division_seed=options.seed,
        ranges=_rows(setting.ranges),
        gate=_rows(setting.gate),
        bounds=options.bounds,
        references=_references(found, setting),
        candidates=tuple(each for one in found for each in one.tried),
        artifacts=tuple(judged),
        confidences=fitted,
        shown=confidences.measure(held_out, bests[0].gate_logits, setting.gate.labels),
        golden_errors=errors,
        portability=checked,
        machine=_machine(options.threads),
    )
    _write(draft, report, reported, manifest, setting.source, out)
    return report


def quantize_bundle(source: Bundle, manifest: Manifest, out: Path, options: Options) -> Report:
    """Quantize a float bundle and write the INT8 bundle at `out`, replacing a bundle there.

    The result holds the best INT8 artifact of each runtime and the float ONNX with half-precision
    weights last, the float bundle's golden logits with tolerances measured here, confidences fitted
    on the INT8 model, and a report as JSON, Markdown and picture. Prints what it works on, what
    each candidate comes to, and the gates. Raises `UserError`, and writes nothing, for rows or a
    bundle that will not do, for a gate that is not passed, and for an artifact that answers
    otherwise on other CPUs.
    """
    graph = float_graph(source)
    check_rows(manifest)
    require_nncf()
    require_matplotlib()
    division = divide(manifest.rows, options.seed)
    print(
        f"quantizing {source.folder} with {manifest.file}: {len(division.ranges)} rows for ranges, "
        f"{len(division.gate)} for the gate"
    )
    face = source.info.input
    ranges = read_part(manifest, division.ranges, face, "images for ranges")
    gate = read_part(manifest, division.gate, face, "images for the gate")
    with tempfile.TemporaryDirectory(prefix="fer-quantize.") as work:
        setting = Setting(
            source=source, graph=graph, draft=Bundle(Path(work), source.info, ""),
            ranges=_shuffled(ranges, options.seed), gate=gate, bounds=options.bounds,
            waive=options.waive, threads=options.threads, speed=options.speed,
            quick=options.quick, target=options.target,
        )  # fmt: skip
        try:
            return _quantize(setting, manifest, out, options)
        except SessionError as error:
            raise UserError(f"{source.folder}: {error}; export it again") from None


def _shuffled(part: Part, seed: int) -> Part:
    """The part in an order of its seed, so that its first rows are a sample of all."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(part.rows))
    return replace(
        part,
        rows=tuple(part.rows[i] for i in order),
        labels=part.labels[order],
        faces=part.faces[order],
    )
