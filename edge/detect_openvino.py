"""YuNet in OpenVINO: the same file and answers as in OpenCV's DNN module, in less time.

The network takes BGR pixels 0…255 as `1×3×H×W` with sides that are multiples of 32, and answers for
three grids, with cells of 8, 16 and 32 pixels. A cell in row r and column c of the grid of stride s
gives `cls` and `obj`, whose geometric mean is the score; `bbox` (dx, dy, log w, log h), a box of
centre ((c + dx)·s, (r + dy)·s) and sides w·s, h·s; and `kps`, five points ((c + dx)·s, (r + dy)·s).
"""

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from contract.faces import Box, Image
from edge.detect_base import LEAST_SIDE, Detection, reduced_size, resize
from edge.detect_reference import (
    STRIDES,
    Answer,
    keep,
    opencv_answer,
    recall,
    reference_picture,
)
from edge.yunet_graph import yunet_graph
from runtime.openvino_settings import openvino_core, openvino_settings

SIZES_KEPT = 4
"""Compiled input sizes: a camera has one, and changes it seldom."""
ALIKE = 1e-2
"""Largest difference to OpenCV's own answer to the same pixels; between CPUs it is under 1e-4."""

log = logging.getLogger(__name__)


def _grid(width: int, height: int) -> NDArray[np.float32]:
    """Column, row and stride of every cell, in the order of the answers: `cells×3`."""
    parts = []
    for stride in STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        parts.append(np.stack([columns, rows, np.full_like(rows, stride)], -1).reshape(-1, 3))
    return np.concatenate(parts).astype(np.float32)


def decode(
    answer: NDArray[np.float32], grid: NDArray[np.float32], score_threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Boxes `n×4` (left, top, width, height), points `n×5×2` and scores `n`, the surest first.

    `answer` is `cells×16`: cls, obj, bbox, kps. Everything is in pixels of the network's input.
    """
    scores = np.sqrt(np.clip(answer[:, 0], 0, 1) * np.clip(answer[:, 1], 0, 1))
    kept = np.flatnonzero(scores >= score_threshold)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    rows, cells = answer[kept], grid[kept]
    stride = cells[:, 2:]
    centres = (rows[:, 2:4] + cells[:, :2]) * stride
    # A face no larger than the picture by far: an exponent beyond it would overflow.
    sides = np.exp(np.minimum(rows[:, 4:6], 10)) * stride
    points = (rows[:, 6:].reshape(-1, 5, 2) + cells[:, None, :2]) * stride[:, None]
    return np.concatenate([centres - sides / 2, sides], 1), points, scores[kept]


class _Network:
    """YuNet compiled for one input size, with its input buffer."""

    def __init__(
        self, core: ov.Core, model: Path, width: int, height: int, threads: int, cache: Path | None
    ) -> None:
        settings = openvino_settings("CPU", threads, cache)
        compiled = core.compile_model(yunet_graph(core, model, width, height), "CPU", settings)
        self.grid = _grid(width, height)
        self._request = compiled.create_infer_request()
        self._pixels = np.zeros((1, height, width, 3), np.float32)

    def run(self, image: Image) -> NDArray[np.float32]:
        """An image no larger than the input, put in its upper left corner → `cells×16`."""
        height, width = image.shape[:2]
        self._pixels[0, :height, :width] = image
        self._pixels[0, height:] = self._pixels[0, :, width:] = 0
        answer = self._request.infer({0: self._pixels}, share_inputs=True, share_outputs=True)
        found: NDArray[np.float32] = answer[0][0]
        # The graph leaves scores as logits: to squash 2 channels of 16 there, all would be copied.
        found[:, :2] = 1 / (1 + np.exp(-np.clip(found[:, :2], -50, 50)))
        return found


def _whole(side: int) -> int:
    """The next multiple of the coarsest stride, and not too small a strip."""
    return max(LEAST_SIDE, -(-side // STRIDES[-1]) * STRIDES[-1])


def _apart(found: Answer, wanted: Answer) -> str:
    """Why OpenVINO's answer is not OpenCV's, in one line, or empty."""
    if found.shape != wanted.shape:
        return f"OpenVINO's YuNet answers {found.shape}, OpenCV's {wanted.shape}"
    # Scores are 0…1, places in cells, sizes logarithmic: one tolerance serves for all.
    apart = float(np.abs(found - wanted).max())
    return "" if apart <= ALIKE else f"OpenVINO's YuNet is {apart:.3g} away from OpenCV's"


class OpenVinoYuNet:
    """YuNet (Wu et al., 2023) in OpenVINO, on `threads` threads of the CPU.

    An image is scaled to a longer side of `detect_size` pixels and padded, not distorted, to whole
    cells. A new size of frame is compiled when it first comes. A detector serves one thread.
    """

    name: Literal["yunet"] = "yunet"
    note = ""

    def __init__(
        self,
        model: Path,
        *,
        detect_size: int,
        score_threshold: float = 0.6,
        nms_threshold: float = 0.3,
        threads: int = 1,
        cache: Path | None = None,
    ) -> None:
        self._model, self._threads, self._cache = model, threads, cache
        self._detect_size = detect_size
        self._score_threshold, self._nms_threshold = score_threshold, nms_threshold
        self._core = openvino_core()
        self._networks: OrderedDict[tuple[int, int], _Network] = OrderedDict()

    def _compile(self, width: int, height: int) -> _Network:
        try:
            return _Network(self._core, self._model, width, height, self._threads, self._cache)
        except RuntimeError as error:
            if self._cache is None:
                raise
            # The cache may be what failed: a full disk, a folder of somebody else's.
            log.warning("YuNet goes on without its model cache: %s", str(error).splitlines()[0])
            self._cache = None
            return self._compile(width, height)

    def _network(self, width: int, height: int) -> _Network:
        key = _whole(width), _whole(height)
        network = self._networks.get(key)
        if network is None:
            network = self._networks[key] = self._compile(*key)
            if len(self._networks) > SIZES_KEPT:
                self._networks.popitem(last=False)
        else:
            self._networks.move_to_end(key)
        return network

    def fault(self) -> str:
        """What is wrong with OpenVINO's answers, in one line, or empty.

        They are compared with OpenCV's to the same made-up picture, of the shape most cameras give.
        What OpenCV answers may be known from an earlier start; no fault is found by that alone.
        Raises `RuntimeError` for a runtime that fails, `cv2.error` where OpenCV does.
        """
        width, height = _whole(self._detect_size), _whole(self._detect_size * 3 // 4)
        picture = reference_picture(width, height)
        found = self._network(width, height).run(picture)
        if self._cache is not None:
            known = recall(self._cache, self._model, picture)
            if known is not None and not _apart(found, known):
                return ""
        wanted = opencv_answer(self._model, picture)
        fault = _apart(found, wanted)
        if self._cache is not None and not fault:
            keep(self._cache, self._model, picture, wanted)
        return fault

    def detect(self, image: Image) -> list[Detection]:
        """The faces in an image, the surest first."""
        size = reduced_size(image, self._detect_size)
        network = self._network(*size)
        boxes, points, scores = decode(
            network.run(resize(image, size)), network.grid, self._score_threshold
        )
        if not len(scores):
            return []
        kept = [0]
        if len(scores) > 1:
            kept = list(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, self._nms_threshold))
        scale = np.array([image.shape[1] / size[0], image.shape[0] / size[1]], np.float32)
        return [
            Detection(
                Box(*(boxes[each] * np.tile(scale, 2)).tolist()),
                min(1.0, float(scores[each])),
                tuple((x, y) for x, y in (points[each] * scale).tolist()),
            )
            for each in kept
        ]
