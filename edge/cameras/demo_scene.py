"""What the demo camera looks at: two public-domain portraits cut out, and a room behind them.

The portraits are package data of matplotlib (Grace Hopper, U.S. Navy) and scikit-image (Eileen
Collins, NASA). The packages are located, never imported: they take seconds.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.images import read_image

MEND = "install it with: pip install 'fer-edge[demo]'"


@dataclass(frozen=True)
class Portrait:
    """Where a picture lies, the outline of the person in it, and where that person sits.

    `size`, `face` (its centre), `outline` and `seen` (left, top, right, bottom of what can come
    into view) are pixels of the picture; `seat` is where the centre of the face rests and `scale`
    the size of the person, both in a view of 640×480 pixels.
    """

    package: str
    file: str
    size: tuple[int, int]
    face: tuple[float, float]
    outline: tuple[tuple[int, int], ...]
    seen: tuple[int, int, int, int]
    seat: tuple[float, float]
    scale: float


# The outlines follow a GrabCut segmentation of each picture, simplified to within 1.6 pixels.
COLLINS = Portrait(
    package="skimage",
    file="data/astronaut.png",
    size=(512, 512),
    face=(223, 120),
    outline=(
        (201, 23), (185, 38), (162, 52), (157, 57), (153, 68), (155, 98), (176, 122), (183, 136),
        (187, 152), (171, 156), (148, 160), (136, 171), (130, 172), (124, 177), (120, 189),
        (120, 198), (102, 216), (99, 232), (61, 252), (45, 286), (42, 302), (34, 323), (34, 329),
        (39, 334), (40, 341), (33, 347), (32, 357), (27, 366), (24, 396), (20, 406), (20, 419),
        (24, 432),
        (23, 460), (26, 484), (29, 493), (38, 505), (39, 511), (511, 511), (511, 503), (507, 500),
        (507, 491), (504, 484), (491, 474), (502, 458), (495, 450), (493, 421), (486, 400),
        (477, 383), (450, 358), (419, 345), (393, 344), (374, 348), (364, 347), (360, 342),
        (356, 302), (343, 268), (317, 242), (303, 232), (299, 214), (276, 184), (256, 174),
        (258, 152), (268, 138), (277, 129), (294, 111), (300, 92), (296, 59), (288, 43),
        (274, 30), (247, 18), (227, 16),
    ),
    seen=(18, 14, 434, 406),
    seat=(462, 222),
    scale=1.08,
)  # fmt: skip
HOPPER = Portrait(
    package="matplotlib",
    file="mpl-data/sample_data/grace_hopper.jpg",
    size=(512, 600),
    face=(268, 227),
    outline=(
        (196, 50), (179, 67), (174, 84), (158, 98), (152, 106), (151, 185), (156, 194), (156, 215),
        (171, 250), (184, 287), (197, 298), (200, 313), (197, 322), (183, 333), (171, 341),
        (169, 349), (164, 352), (74, 375), (62, 386), (33, 426), (27, 440), (27, 459), (17, 526),
        (11, 599), (511, 599), (511, 437), (506, 433), (492, 393), (464, 377), (420, 365),
        (365, 342), (337, 321), (333, 315), (346, 286), (348, 273), (361, 260), (370, 222),
        (370, 208), (374, 200), (374, 189), (368, 180), (371, 134), (369, 129), (369, 100),
        (365, 90), (353, 85), (343, 64), (327, 51), (309, 43), (293, 46), (284, 38), (275, 34),
        (267, 37), (261, 32), (253, 37), (242, 34), (227, 46), (215, 42),
    ),
    seen=(9, 30, 512, 590),
    seat=(186, 236),
    scale=0.80,
)  # fmt: skip


def locate(portrait: Portrait) -> Path:
    """The picture's file, found without importing its package.

    Raises `UserError` where the package or the file is not installed.
    """
    spec = importlib.util.find_spec(portrait.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / portrait.file
        if path.is_file():
            return path
    raise UserError(
        f"the demo camera needs the portrait {portrait.file} of the package {portrait.package}; "
        f"{MEND}"
    )


@dataclass(frozen=True)
class Figure:
    """A person cut out, at the size seen, in two lights; BGR premultiplied by alpha, `H×W×4`."""

    lit_left: Image
    lit_right: Image
    face: tuple[float, float]


def cut_out(portrait: Portrait, scale: float) -> Figure:
    """The person of a portrait, `scale` times the size of the picture."""
    picture = read_image(locate(portrait))
    if picture.shape[1::-1] != portrait.size:
        raise UserError(f"{locate(portrait)} is not the portrait it should be; {MEND}")
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.array(portrait.outline, np.int32)], 255)
    # Shrunk by a pixel and feathered, so that no fringe of the old background shows.
    mask = np.asarray(cv2.erode(mask, np.ones((3, 3), np.uint8)), np.uint8)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), 1.3), np.uint8)
    x0, y0, x1, y1 = portrait.seen
    picture, mask = picture[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    size = (round((x1 - x0) * scale), round((y1 - y0) * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    colour = cv2.resize(picture, size, interpolation=method).astype(np.float32)
    alpha = cv2.resize(mask, size, interpolation=method).astype(np.float32)[..., None]
    # A webcam shows less colour and contrast than a studio's film.
    grey = colour.mean(axis=2, keepdims=True)
    colour = 16 + 0.86 * (0.82 * colour + 0.18 * grey)
    # Daylight from the left is cool, the lamp on the right is warm.
    across = np.linspace(-1, 1, size[0], dtype=np.float32)[None, :, None]
    left = colour * (1 - 0.16 * across) * np.array([1.04, 1.0, 0.97], np.float32)
    right = colour * (1 + 0.16 * across) * np.array([0.94, 0.99, 1.05], np.float32)

    def premultiplied(lit: NDArray[np.float32]) -> Image:
        solid = np.clip(lit, 0, 255) * alpha / 255
        return np.concatenate([solid, alpha], axis=2).round().astype(np.uint8)

    face = ((portrait.face[0] - x0) * scale, (portrait.face[1] - y0) * scale)
    return Figure(premultiplied(left), premultiplied(right), face)


def draw_room(width: int, height: int, rng: np.random.Generator) -> Image:
    """A room out of focus: wall, window, shelf with books, a picture; `H×W×3` BGR."""
    room = np.empty((480, 640, 3), np.float32)
    fall = np.linspace(1.06, 0.72, 640, dtype=np.float32)[None, :, None]
    room[:] = np.array([150, 160, 166], np.float32) * fall
    room[350:] *= 0.86

    def box(x: int, y: int, w: int, h: int, bgr: tuple[float, float, float]) -> None:
        cv2.rectangle(room, (x, y), (x + w, y + h), bgr, cv2.FILLED)

    box(12, 18, 118, 190, (205, 212, 214))
    for pane in (20, 76):
        box(pane, 26, 46, 174, (246, 240, 232))
    for slat in range(26, 130, 13):
        box(18, slat, 106, 3, (190, 196, 198))
    box(262, 52, 92, 70, (60, 74, 88))
    box(268, 58, 80, 58, (178, 170, 150))
    box(268, 92, 80, 24, (112, 140, 118))
    for shelf in (92, 196, 300):
        box(548, shelf, 92, 7, (58, 84, 112))
        x = 552
        while x < 632:
            thick, tall = int(rng.integers(8, 17)), int(rng.integers(52, 80))
            hue = int(rng.integers(0, 180))
            hsv = np.array([[[hue, int(rng.integers(25, 85)), int(rng.integers(60, 140))]]])
            bgr = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
            box(x, shelf - tall, thick, tall, (float(bgr[0]), float(bgr[1]), float(bgr[2])))
            x += thick + 2
    soft = cv2.GaussianBlur(room, (0, 0), 4.5)
    resized = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(resized, 0, 255).round().astype(np.uint8)


def draw_noise(
    width: int, height: int, rng: np.random.Generator, sigma: float = 3.2
) -> tuple[Image, Image]:
    """Sensor noise as what to add and what to take away, each uint8 `H×W×3`.

    Luminance noise is fine and common to the channels, colour noise is coarser, as a small
    sensor's is after its own processing.
    """
    luminance = rng.normal(0, sigma, (height, width, 1)).astype(np.float32)
    colour = rng.normal(0, 2.2 * sigma, (height, width, 3)).astype(np.float32)
    field = luminance + np.asarray(cv2.GaussianBlur(colour, (0, 0), 1.2), np.float32)
    rounded = field.round()
    return (
        np.clip(rounded, 0, 255).astype(np.uint8),
        np.clip(-rounded, 0, 255).astype(np.uint8),
    )
