"""`fer-edge fit-crop`: measure how a detector's box maps to the frame the model is trained on.

Training images are faces that fill their frame. Each is set into a wider picture, enlarged and run
through the detector; the mapping that turns its boxes back into training frames is the median.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from contract.command import Parser
from contract.errors import UserError
from contract.faces import Box, Image, read_image
from contract.files import write_json_atomic
from contract.manifest import Row, read_manifest
from edge.cli import result_file
from edge.detect import Detector, make_detector

FACE_PX = 160
"""Side the training image is enlarged to: a face at arm's length before a webcam."""
FRAME_W, FRAME_H = 640, 480
LEAST_FACES = 20


def _scene(image: Image) -> Image:
    """The image at `FACE_PX` in the middle of a 640×480 frame of its own mean colour."""
    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    face = cv2.resize(image, (FACE_PX, FACE_PX), interpolation=cv2.INTER_CUBIC)
    scene = np.empty((FRAME_H, FRAME_W, 3), np.uint8)
    scene[:] = face.reshape(-1, 3).mean(axis=0)
    left, top = (FRAME_W - FACE_PX) // 2, (FRAME_H - FACE_PX) // 2
    scene[top : top + FACE_PX, left : left + FACE_PX] = face
    return scene


def _mapping(box: Box) -> tuple[float, float, float]:
    """(scale, shift_x, shift_y) that would map this box to the training frame exactly."""
    scale = FACE_PX / max(box.w, box.h)
    shift_x = (FRAME_W / 2 - (box.x + box.w / 2)) / box.w
    shift_y = (FRAME_H / 2 - (box.y + box.h / 2)) / box.h
    return scale, shift_x, shift_y


def fit(images: Sequence[Image], detector: Detector) -> dict[str, Any]:
    """Median and quartiles of scale and shifts over the images whose face is found.

    Raises `UserError` if fewer than 20 are found.
    """
    found = []
    for image in images:
        boxes = [d.box for d in detector.detect(_scene(image))]
        if boxes:
            found.append(_mapping(max(boxes, key=lambda box: box.w * box.h)))
    if len(found) < LEAST_FACES:
        raise UserError(
            f"{detector.name} found a face in {len(found)} of {len(images)} images; "
            f"at least {LEAST_FACES} are needed for a fit"
        )
    quartiles = np.percentile(np.array(found), [25, 50, 75], axis=0)
    names = ("scale", "shift_x", "shift_y")
    return {
        "images": len(images),
        "found": len(found),
        **{name: round(float(quartiles[1, i]), 3) for i, name in enumerate(names)},
        "quartiles": {
            n: [round(float(q), 3) for q in quartiles[:, i]] for i, n in enumerate(names)
        },
    }


def evenly(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` of the rows (all, if there are fewer), evenly taken from the first to the last."""
    count = min(count, len(rows))
    return [rows[position * len(rows) // count] for position in range(count)]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-edge fit-crop", description=__doc__)
    add = parser.add_argument
    add("--manifest", type=Path, required=True, metavar="CSV", help="training images")
    add("--images", type=int, default=500, metavar="N", help="how many, evenly taken (default 500)")
    add("--json", type=result_file, required=True, metavar="OUT", help="where the mapping goes")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    manifest = read_manifest(given.manifest).select("train")
    rows = evenly(manifest.rows, given.images)
    images = []
    for row in rows:
        image = read_image(manifest.path(row))
        if image is None:
            raise UserError(f"{manifest.place(row)} cannot be decoded; restore it")
        images.append(image)
    result: dict[str, Any] = {"manifest_sha256": manifest.sha256}
    for kind in ("yunet", "haar"):
        detector = make_detector(kind)
        result[kind] = fit(images, detector)
        fitted = result[kind]
        print(
            f"[input.crop.{kind}]  # {fitted['found']} of {fitted['images']} faces found\n"
            f"scale = {fitted['scale']}\nshift_x = {fitted['shift_x']}\n"
            f"shift_y = {fitted['shift_y']}"
        )
    write_json_atomic(given.json, result)
    return 0
