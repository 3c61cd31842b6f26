"""Faces found in whole frames beside the same faces given directly.

    PYTHONPATH=. python benchmarks/scenes.py --manifest data/muxspace/val.csv --json FILE

Each face of the manifest is drawn at 80 to 200 px into a made-up room of 640×480, faded at its
border, and evaluated both ways: `given`, the image as it is, and `found`, the frame through the
detector. A missed face counts as wrong. Where and how large each face is follows from the seed. The
interval of the difference is a paired bootstrap over faces.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.asked import about, parser, serving
from contract.bundle import Bundle
from contract.command import run_command
from contract.errors import UserError
from contract.faces import read_image
from contract.files import write_json_atomic
from contract.intervals import mean_interval
from contract.manifest import Manifest, read_manifest, write_manifest
from edge.detect import make_detector
from edge.offline.evaluate import predict, report
from edge.offline.record import run_record
from edge.offline.sessions_scene import MARGIN, Pose, face_patch, paste, room
from runtime.session import Session

COMMAND = "benchmarks/scenes.py"
WIDTH, HEIGHT = 640, 480
LEAST_PX, MOST_PX = 80, 200


def build(manifest: Manifest, folder: Path, seed: int) -> Manifest:
    """A frame per row of `manifest`, written into `folder` with a manifest of their own."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, row in enumerate(manifest.rows):
        image = read_image(manifest.path(row))
        if image is None:
            raise UserError(
                f"{manifest.place(row)} cannot be decoded; restore it or remove the row"
            )
        side = float(rng.uniform(LEAST_PX, MOST_PX))
        reach = side * (0.5 + MARGIN)
        x, y = rng.uniform(reach, WIDTH - reach), rng.uniform(reach, HEIGHT - reach)
        frame = room(rng, WIDTH, HEIGHT)
        paste(frame, face_patch(image), Pose(float(x), float(y), side))
        name = f"{number:05}.png"
        cv2.imwrite(str(folder / name), frame)
        rows.append(replace(row, path=name, sha256=None))
    write_manifest(folder / "scenes.csv", rows)
    return read_manifest(folder / "scenes.csv")


def measure(manifest: Manifest, bundle: Bundle, session: Session, seed: int) -> dict[str, Any]:
    """All figures of both ways, and the difference of their accuracies in points."""
    detector = make_detector("auto")
    given = predict(manifest, bundle, session, None)
    with tempfile.TemporaryDirectory(prefix="fer-scenes.") as folder:
        found = predict(build(manifest, Path(folder), seed), bundle, session, detector)
    right = [(each.predicted == each.labels).astype(np.float64) for each in (given, found)]
    difference = 100 * (right[1] - right[0])
    return {
        "n": len(manifest.rows),
        "missed": int((found.predicted < 0).sum()),
        "given": report(given, bundle.info.temperature, "single label"),
        "found": report(found, bundle.info.temperature, "single label"),
        "difference_points": float(difference.mean()),
        "difference_interval": mean_interval(difference, seed),
        "frame": [WIDTH, HEIGHT],
        "face_px": [LEAST_PX, MOST_PX],
        "seed": seed,
        **about(bundle, session),
        "detector": detector.name,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = parser(COMMAND, __doc__).parse_args(arguments)
    manifest = read_manifest(given.manifest)
    with serving(given) as (bundle, session):
        result = measure(manifest, bundle, session, given.seed)
    result["run"] = run_record(f"python {COMMAND}", arguments, 1)
    write_json_atomic(given.json, result)
    low, high = result["difference_interval"]
    print(
        f"n {result['n']}  given {result['given']['accuracy']:.4f}  found "
        f"{result['found']['accuracy']:.4f}  difference {result['difference_points']:+.2f} points "
        f"[{low:+.2f}, {high:+.2f}]  missed {result['missed']}  ({result['detector']})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(COMMAND, lambda: main(sys.argv[1:])))
