"""OpenCV's own answer of YuNet to a made-up picture: what another runtime must come close to.

Loading OpenCV's network costs a start more than the comparison itself, so its answer is kept beside
the compiled models. The other runtime answers anew at every start.
"""

import hashlib
import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from contract.faces import Image
from contract.files import sha256_file, write_atomic
from runtime.machine import cpu_model

STRIDES = (8, 16, 32)
PARTS = ("cls", "obj", "bbox", "kps")

Answer = NDArray[np.float32]
"""`cells×16`: the grids of all strides after each other, the parts side by side."""

log = logging.getLogger(__name__)


def reference_picture(width: int, height: int) -> Image:
    """Coloured patches, always the same: uint8 `height×width×3` BGR."""
    random = np.random.Generator(np.random.PCG64(5))
    coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


def opencv_answer(model: Path, picture: Image) -> Answer:
    """What OpenCV's DNN module answers. Raises `cv2.error` where it does not open the file."""
    net = cv2.dnn.readNetFromONNX(str(model))
    net.setInput(cv2.dnn.blobFromImage(picture))
    names = [f"{part}_{stride}" for stride in STRIDES for part in PARTS]
    answers = dict(zip(names, net.forward(names), strict=True))
    grids = [
        np.concatenate([np.asarray(answers[f"{part}_{stride}"])[0] for part in PARTS], axis=1)
        for stride in STRIDES
    ]
    return np.concatenate(grids).astype(np.float32)


def _file(folder: Path, model: Path, picture: Image) -> Path:
    """Where the answer is kept: another model, picture, OpenCV or CPU is another file."""
    facts = (sha256_file(model), str(picture.shape), cv2.__version__, cpu_model())
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return folder / f"yunet-opencv-{key[:16]}.npy"


def recall(folder: Path, model: Path, picture: Image) -> Answer | None:
    """The answer kept at an earlier start, or None. A hint: what differs from it asks OpenCV."""
    try:
        return np.asarray(np.load(_file(folder, model, picture), allow_pickle=False), np.float32)
    except (OSError, ValueError, EOFError):
        return None


def keep(folder: Path, model: Path, picture: Image, answer: Answer) -> None:
    """Keep it; a folder that cannot be written only costs the next start its time."""
    try:
        write_atomic(_file(folder, model, picture), lambda stream: np.save(stream, answer))
    except OSError as error:
        log.warning("OpenCV's answer of YuNet is not kept: %s", error)
