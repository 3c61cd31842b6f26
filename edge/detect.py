"""Faces in a frame: the best detector that can be had here."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2

from contract.errors import UserError
from edge.detect_base import Detection, Detector
from edge.detect_opencv import Haar, YuNet
from edge.detector_files import YUNET_FILE, fault_of, find_yunet, model_folders

__all__ = ["Detection", "Detector", "DetectorKind", "make_detector"]

YUNET_SIZE = 320
HAAR_SIZE = 480

DetectorKind = Literal["auto", "yunet", "haar"]

log = logging.getLogger(__name__)


def _yunet(
    model: Path, size: int, score_threshold: float, threads: int, cache: Path | None
) -> Detector:
    """YuNet in OpenVINO where that works and agrees with OpenCV; else in OpenCV, saying why."""
    try:
        # Imported here: a box may have only one of the runtimes.
        from edge.detect_openvino import OpenVinoYuNet

        detector = OpenVinoYuNet(
            model, detect_size=size, score_threshold=score_threshold, threads=threads, cache=cache
        )
        fault = detector.fault()
        if not fault:
            return detector
    except ImportError as error:
        fault = f"OpenVINO is not installed ({error})"
    except (RuntimeError, cv2.error) as error:
        fault = f"OpenVINO does not run it ({' '.join(str(error).split())[:200]})"
    note = f"YuNet runs in OpenCV, which is slower: {fault}"
    return YuNet(model, detect_size=size, score_threshold=score_threshold, note=note)


def make_detector(
    kind: DetectorKind = "auto",
    *,
    folders: Sequence[Path] | None = None,
    detect_size: int | None = None,
    score_threshold: float = 0.6,
    threads: int = 1,
    cache: Path | None = None,
) -> Detector:
    """A detector of this kind; `auto` is YuNet if its pinned file is at hand, otherwise Haar.

    YuNet runs in OpenVINO on `threads` threads, with compiled models kept in `cache`, if that
    answers as OpenCV does, otherwise in OpenCV. `detect_size` is the longer side, in pixels, at
    which a frame is searched (default: 320 for YuNet, 480 for Haar); `score_threshold` is YuNet's.
    `folders` are searched for the file (default: `model_folders()`). The `note` of a detector that
    stands in for a better one says why.

    Raises `UserError` if `yunet` is demanded and cannot be had.
    """
    if kind == "haar":
        return Haar(detect_size=detect_size or HAAR_SIZE)
    searched = model_folders() if folders is None else tuple(folders)
    model = find_yunet(searched)
    if model is None:
        places = " or ".join(str(folder) for folder in searched)
        fault = f"no {YUNET_FILE} in {places}"
    else:
        fault = fault_of(model)
        if not fault:
            try:
                size = detect_size or YUNET_SIZE
                return _yunet(model, size, score_threshold, threads, cache)
            except cv2.error as error:
                fault = f"OpenCV does not open it ({error.err})"
    if kind == "yunet":
        raise UserError(f"detector yunet: {fault}; get the file or use the detector haar")
    return Haar(
        detect_size=detect_size or HAAR_SIZE, note=f"Haar cascade instead of YuNet: {fault}"
    )
