"""What the serving domain costs: the same faces spoilt in one way at a time.

    PYTHONPATH=. python benchmarks/robustness.py --manifest data/ferplus/argmax/val.csv --json FILE

Each row is a share of the images of `--manifest` (every `--every`-th) through the bundle, spoilt as
its name says before the face is prepared: size (the face seen at so many pixels), blur (Gaussian,
pixels at 48), JPEG quality, low light (a share of it, and sensor noise), crops off-centre or loose
(shares of the side; what lies outside repeats the border), a tint, and a hand over a part of the
face (an ellipse of skin colour over the mouth, one side or the eyes). Differences from the unspoilt
images are paired, with 95 % intervals of the bootstrap over faces.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.asked import about, parser, serving
from contract import metrics
from contract.bundle import Bundle
from contract.command import run_command
from contract.errors import UserError
from contract.faces import Image, prepare_face, read_image
from contract.files import write_json_atomic
from contract.intervals import mean_interval
from contract.manifest import Manifest, read_manifest
from edge.offline.record import run_record
from runtime.session import Session

COMMAND = "benchmarks/robustness.py"
SIDE = 192
"""Images are spoilt at this size, so that a blur or a crop is not one of single pixels."""
BATCH = 32
SKIN = (110.0, 140.0, 190.0)
Spoil = Callable[[Image, np.random.Generator], Image]


def _image(values: NDArray[Any]) -> Image:
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def sized(image: Image, rng: np.random.Generator, side: int) -> Image:
    """As a camera sees a face `side` pixels wide."""
    return _image(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))


def blurred(image: Image, rng: np.random.Generator, sigma: float) -> Image:
    """Gaussian blur of `sigma` pixels at a side of 48."""
    return _image(cv2.GaussianBlur(image, (0, 0), sigma * SIDE / 48))


def compressed(image: Image, rng: np.random.Generator, quality: int) -> Image:
    """JPEG at a side of 96 pixels."""
    small = cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA)
    _, packed = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _image(cv2.imdecode(packed, cv2.IMREAD_COLOR))


def dark(image: Image, rng: np.random.Generator, light: float) -> Image:
    """A share of the light, and the noise of a sensor that has too little of it."""
    dim = image.astype(np.float32) * light
    return _image(dim + rng.normal(0, 4, image.shape))


def cropped(image: Image, rng: np.random.Generator, scale: float, shift: float) -> Image:
    """`scale` times the side, shifted by `shift` sides in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    centre = SIDE / 2 + shift * SIDE * np.array([np.cos(angle), np.sin(angle)])
    zoom = 1 / scale
    turn = np.array(
        [[zoom, 0, SIDE / 2 - zoom * centre[0]], [0, zoom, SIDE / 2 - zoom * centre[1]]]
    )
    return _image(cv2.warpAffine(image, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE))


def tinted(image: Image, rng: np.random.Generator) -> Image:
    """The light of a warm or a cold lamp."""
    warmth = rng.uniform(-0.3, 0.3)
    return _image(image * np.array([1 - warmth, 1.0, 1 + warmth]))


def covered(image: Image, rng: np.random.Generator, x: float, y: float) -> Image:
    """A hand about two fifths of the face long, centred at shares `x`, `y` of its sides."""
    hand = image.copy()
    middle = (round(x * SIDE), round(y * SIDE))
    colour = tuple(float(c) * image.mean() / 140 for c in SKIN)
    axes = (round(0.28 * SIDE), round(0.14 * SIDE))
    cv2.ellipse(hand, middle, axes, float(rng.uniform(-25, 25)), 0, 360, colour, -1, cv2.LINE_AA)
    return _image(hand)


WAYS: dict[str, Spoil] = {
    **{f"size {side} px": partial(sized, side=side) for side in (20, 28, 40, 64, 100, 200)},
    **{f"blur {sigma:g}": partial(blurred, sigma=sigma) for sigma in (0.5, 1.0, 1.5)},
    **{f"JPEG {quality}": partial(compressed, quality=quality) for quality in (60, 30, 15)},
    **{f"light {light:g}": partial(dark, light=light) for light in (0.5, 0.25, 0.12)},
    **{f"off-centre {shift:g}": partial(cropped, scale=1.0, shift=shift) for shift in (0.05, 0.1)},
    **{
        f"crop × {scale:g}": partial(cropped, scale=scale, shift=0.0) for scale in (0.85, 1.15, 1.3)
    },
    "tint": tinted,
    "hand on mouth": partial(covered, x=0.5, y=0.78),
    "hand on one side": partial(covered, x=0.85, y=0.5),
    "hand on eyes": partial(covered, x=0.5, y=0.36),
}


def read(manifest: Manifest, every: int) -> tuple[list[Image], NDArray[np.int64]]:
    """Every `every`-th face of a manifest, `SIDE` pixels a side and BGR, and their labels."""
    images = []
    for row in manifest.rows[::every]:
        image = read_image(manifest.path(row))
        if image is None:
            raise UserError(
                f"{manifest.place(row)} cannot be decoded; restore it or remove the row"
            )
        colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        images.append(_image(cv2.resize(colour, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)))
    return images, manifest.labels()[::every]


def answers(
    session: Session, faces: Sequence[NDArray[np.uint8]], temperature: float
) -> NDArray[np.float64]:
    """The probabilities `N×7` of prepared faces."""
    parts = [faces[start : start + BATCH] for start in range(0, len(faces), BATCH)]
    logits = np.concatenate([session.run(np.stack(part)) for part in parts])
    return metrics.softmax(logits, temperature)


def figures(labels: NDArray[np.int64], p: NDArray[np.float64]) -> dict[str, float]:
    """The metrics of these probabilities that a result file keeps."""
    whole = metrics.compute(labels, p, p.argmax(axis=1)).to_json()
    kept = {name: whole[name] for name in ("accuracy", "macro_f1", "ece", "nll", "brier")}
    return {**kept, "mean_confidence": float(p.max(axis=1).mean())}


def measure(
    manifest: Manifest, bundle: Bundle, session: Session, every: int, seed: int
) -> dict[str, Any]:
    """The figures of the unspoilt images and of each way to spoil them."""
    images, labels = read(manifest, every)
    clean = answers(
        session, [prepare_face(i, bundle.info.input) for i in images], bundle.info.temperature
    )
    ways = {}
    for name, spoil in WAYS.items():
        rng = np.random.default_rng(seed)
        faces = [prepare_face(spoil(image, rng), bundle.info.input) for image in images]
        p = answers(session, faces, bundle.info.temperature)
        right = [(each.argmax(axis=1) == labels).astype(np.float64) for each in (p, clean)]
        change = 100 * (right[0] - right[1])
        ways[name] = {
            **figures(labels, p),
            "accuracy_change_points": float(change.mean()),
            "interval": mean_interval(change, seed),
        }
    return {
        "n": len(labels),
        "unspoilt": figures(labels, clean),
        "ways": ways,
        "every": every,
        "seed": seed,
        **about(bundle, session),
        "manifest_sha256": manifest.sha256,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = parser(COMMAND, __doc__, sampled=True).parse_args(arguments)
    manifest = read_manifest(given.manifest)
    with serving(given) as (bundle, session):
        result = measure(manifest, bundle, session, given.every, given.seed)
    result["run"] = run_record(f"python {COMMAND}", arguments, 1)
    write_json_atomic(given.json, result)
    print(f"{'unspoilt':18} accuracy {result['unspoilt']['accuracy']:.4f}  n {result['n']}")
    for name, way in result["ways"].items():
        low, high = way["interval"]
        print(
            f"{name:18} accuracy {way['accuracy']:.4f}  {way['accuracy_change_points']:+6.2f} "
            f"points [{low:+.2f}, {high:+.2f}]  ECE {way['ece']:.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(COMMAND, lambda: main(sys.argv[1:])))
