"""The page about the built-in model, from committed result files alone.

    PYTHONPATH=. python benchmarks/model_page.py > docs/model.md

Every figure is that of a result file of the bundle in `edge/default_bundle`; one of another bundle
is refused, but for the model of FER2013's own labels, which is not shipped. A test compares the
page with `docs/model.md`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from contract.bundle import open_bundle
from contract.command import run_command
from contract.errors import UserError
from contract.expressions import EXPRESSIONS

RESULTS = Path(__file__).parent
BUNDLE = RESULTS.parent / "edge" / "default_bundle"
ROWS = {
    "argmax": ("evaluate-val-argmax-int8", "FER+ PublicTest, argmax protocol"),
    "openvino": ("evaluate-val-argmax-int8-openvino", "the same on OpenVINO"),
    "strict": ("evaluate-val-strict-int8", "FER+ PublicTest, strict protocol"),
    "muxspace": ("evaluate-muxspace-val-int8", "muxspace val, single labels"),
    "both": ("evaluate-test-all-sources-int8", "both (`test_all_sources`)"),
}
FEW = 5
METRICS = ("accuracy", "macro_f1", "ece", "brier", "nll")


def newest(what: str, sha256: str | None) -> tuple[str, dict[str, Any]]:
    """Name and content of the newest result called `<date>-<what>.json`, of the bundle named.

    Raises `UserError` where there is none, or it measured another bundle than the one asked for.
    """
    found = sorted(RESULTS.glob(f"*-{what}.json"))
    if not found:
        raise UserError(f"benchmarks/: no result DATE-{what}.json; measure it first")
    content: dict[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
    if sha256 is not None and content["bundle"]["sha256"] != sha256:
        raise UserError(
            f"{found[-1].name} is of {content['bundle']['name']}, not of the built-in bundle; "
            f"measure it again: {content['run']['command']}"
        )
    return found[-1].name, content


def of_runtime(backend: str, what: str, sha256: str) -> tuple[str, dict[str, Any]]:
    """As `newest`; raises `UserError` too where it was measured on another runtime."""
    name, content = newest(what, sha256)
    if content["backend"] != backend:
        raise UserError(
            f"{name} was measured on {content['backend']}; measure it with --backend {backend}, "
            "as the page's first column"
        )
    return name, content


def _cell(value: float, interval: list[float], digits: int = 3) -> str:
    low, high = interval
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _measured(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| | " + " | ".join(ROWS[name][1] for name in found) + " |",
        "| --- |" + " ---: |" * len(found),
        "| n | " + " | ".join(str(one["n"]) for one in found.values()) + " |",
    ]
    for metric in METRICS:
        cells = (_cell(one[metric], one["intervals"][metric]) for one in found.values())
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    for name in EXPRESSIONS:
        cells = (
            _cell(one["per_class_f1"][name], one["intervals"][f"f1_{name}"])
            for one in found.values()
        )
        lines.append(f"| F1 {name} | " + " | ".join(cells) + " |")
    return lines


def _few(found: dict[str, dict[str, Any]]) -> str:
    """A sentence on each column with so few images of an expression that its F1 says nothing."""
    said = []
    for name, one in found.items():
        images = zip(EXPRESSIONS, map(sum, one["confusion_matrix"]), strict=True)
        few = [f"{count} {expression}" for expression, count in images if count < FEW]
        if few:
            said.append(
                f"Of {ROWS[name][1]}: {', '.join(few)}; their F1 counts in its macro-F1 as any. "
            )
    return "".join(said)


def _coverage(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| share kept | " + " | ".join(ROWS[name][1] for name in found) + " |",
        "| ---: |" + " ---: |" * len(found),
    ]
    for points in zip(*(one["coverage"] for one in found.values()), strict=True):
        cells = (f"{point['accuracy']:.3f} (from {point['confidence']:.2f})" for point in points)
        lines.append(f"| {points[0]['coverage']:.0%} | " + " | ".join(cells) + " |")
    return lines


def _near_copies(found: dict[str, Any]) -> list[str]:
    rest = found["rest"]
    cells = ", ".join(
        f"{metric} {_cell(rest[metric], rest['intervals'][metric])}" for metric in METRICS
    )
    return [
        f"{found['seen_nearly']['n']} of the {found['all']['n']} val images (argmax) are nearly "
        "the same picture as one of `train` or `calib`: a watermark more, another crop. Equal "
        "pixels were kept out of training, these were not. Among them are "
        + ", ".join(f"{count} {name}" for name, count in found["seen_nearly_rows"].items())
        + ". Accuracy on them is "
        f"{found['seen_nearly']['accuracy']:.3f}; without them, on {rest['n']}: {cells}.",
    ]


def _rare(found: dict[str, Any]) -> list[str]:
    rare = list(found["rows_of"])
    lines = [
        "| decided by | shown | accuracy | macro_f1 | "
        + " | ".join(f"F1 {name}" for name in rare)
        + " | ece | macro_f1, points |",
        "| --- |" + " ---: |" * (5 + len(rare)),
    ]
    for name, way in found["ways"].items():
        low, high = (100 * end for end in way["change_intervals"]["macro_f1"])
        change = 100 * (way["macro_f1"] - found["ways"]["as it answers"]["macro_f1"])
        lines.append(
            f"| {name} | {way['coverage']:.0%} | {way['accuracy']:.3f} | {way['macro_f1']:.3f} | "
            + " | ".join(f"{way[f'f1_{each}']:.3f}" for each in rare)
            + f" | {way['ece']:.3f} | "
            + (f"{change:+.1f} [{low:+.1f}, {high:+.1f}] |" if low < high else "|")
        )
    return lines


def _robustness(found: dict[str, Any]) -> list[str]:
    lines = [
        "| spoilt by | accuracy | change, points | ECE | mean confidence |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    clean = found["unspoilt"]
    lines.append(
        f"| nothing | {clean['accuracy']:.3f} | | {clean['ece']:.3f} | "
        f"{clean['mean_confidence']:.3f} |"
    )
    for name, way in found["ways"].items():
        low, high = way["interval"]
        lines.append(
            f"| {name} | {way['accuracy']:.3f} | {way['accuracy_change_points']:+.1f} "
            f"[{low:+.1f}, {high:+.1f}] | {way['ece']:.3f} | {way['mean_confidence']:.3f} |"
        )
    return lines


def page() -> str:
    """The whole page, Markdown. Raises `UserError` for a result that is missing or of another."""
    bundle = open_bundle(BUNDLE)
    sha256 = bundle.sha256
    backend = newest(ROWS["argmax"][0], sha256)[1]["backend"]
    named = {
        name: of_runtime("openvino" if name == "openvino" else backend, what, sha256)
        for name, (what, _) in ROWS.items()
    }
    found = {name: content for name, (_, content) in named.items()}
    scenes_file, scenes = of_runtime(backend, "scenes-muxspace-val", sha256)
    robustness_file, robustness = of_runtime(backend, "robustness-val-argmax", sha256)
    rare_file, rare = of_runtime(backend, "rare-classes-val-argmax", sha256)
    near_file, near = of_runtime(backend, "near-copies-val-argmax", sha256)
    other_file, other = newest("evaluate-fer2013-val", None)
    low, high = scenes["difference_interval"]
    files = [
        *(file for file, _ in named.values()), near_file, rare_file, scenes_file, robustness_file,
        other_file,
    ]  # fmt: skip
    return "\n".join(
        [
            "# How good the built-in model is",
            "",
            f"`{bundle.info.name}`, its INT8 artifacts, one crop. Figures are of "
            f"{backend}; a box takes the runtime that is faster on it, and OpenVINO has a "
            "column of its own. What it is, what it was trained on and what it is for is in its "
            "[card](../edge/default_bundle/model_card.md). In brackets: 95 % intervals of the "
            "bootstrap over images, which do not cover another training seed.",
            "",
            *_measured(found),
            "",
            f"{_few(found)}The protocols differ in which images they keep: figures of one are not "
            "comparable with those of another. Temperature and thresholds were fitted on `calib`, "
            "cut from training.",
            "",
            *_near_copies(near),
            "",
            "## The surest answers",
            "",
            "Accuracy of the surest share of the images, and the confidence it begins at: what an "
            "abstention threshold buys.",
            "",
            *_coverage(found),
            "",
            "## The rarer expressions",
            "",
            "What can be done after training for the expressions with few images ("
            + ", ".join(f"{name} {count}" for name, count in rare["rows_of"].items())
            + f" of {rare['n']} val images, argmax): logit adjustment with the τ of the best "
            f"macro-F1 on `calib` ({rare['tau']:g}{'' if rare['tau'] else ': none'}), or the "
            "bundle's thresholds, under which nothing is shown and which count such an image as "
            "missed. The box answers with the thresholds and without the adjustment.",
            "",
            *_rare(rare),
            "",
            "## In whole frames",
            "",
            f"The {scenes['n']} val faces of muxspace at {scenes['face_px'][0]} to "
            f"{scenes['face_px'][1]} px in frames of {scenes['frame'][0]}×{scenes['frame'][1]}: "
            f"accuracy {scenes['found']['accuracy']:.3f} through the detector "
            f"({scenes['detector']}, {scenes['missed']} missed and counted as wrong) against "
            f"{scenes['given']['accuracy']:.3f} with the faces given, "
            f"{scenes['difference_points']:+.1f} points [{low:+.1f}, {high:+.1f}].",
            "",
            "## What spoils it",
            "",
            f"{robustness['n']} val images (argmax), each spoilt in one way "
            "(`benchmarks/robustness.py` says how); differences are paired. Read it as where to "
            "put the camera and the lamp.",
            "",
            *_robustness(robustness),
            "",
            "## On FER2013's own labels",
            "",
            f"For comparison with its literature, a model of the same kind that ended its training "
            f"on the labels FER2013 came with (not shipped, float): on its PublicTest, "
            f"n = {other['n']}, accuracy {_cell(other['accuracy'], other['intervals']['accuracy'])}"
            f", macro-F1 {_cell(other['macro_f1'], other['intervals']['macro_f1'])}. Only the "
            "images whose labels could be recovered count, and its weights were trained on FER+ "
            "first, so it is no entry in a ranking.",
            "",
            "## Where these figures come from",
            "",
            *(f"- [{file}](../benchmarks/{file})" for file in files),
            "",
            "This page is made by `PYTHONPATH=. python benchmarks/model_page.py > docs/model.md`.",
            "",
        ]
    )


def main() -> int:
    """Print the page; raises `UserError`."""
    sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks/model_page.py", main))
