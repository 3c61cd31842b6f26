"""ExpW: photographs found on the web with a box and a label per face (Zhang et al., 1609.06426)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from contract.errors import UserError
from contract.faces import Box, Image
from contract.manifest import Row
from trainer.data.importers._common import (
    Sample,
    class_of,
    divide,
    first_existing,
    lines,
    listed_once,
    make_folder,
    summary,
    write,
)
from trainer.data.importers._crops import fault_of, photograph, save_face, sharpness

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_LABEL_FILES = ("label.lst", "label/label.lst", "data/label/label.lst")
_IMAGE_FOLDERS = (
    "image/origin", "data/image/origin", "image/origin/origin", "data/image/origin/origin",
    "origin", "origin/origin", "image", "data/image", ".",
)  # fmt: skip


@dataclass(frozen=True)
class Quality:
    """What a face needs for the high-quality set.

    `confidence` is the detector's score in the label file, `side` the longer side of the box in
    pixels of the photograph, `sharpness` the variance of the Laplacian at 112×112 pixels.
    """

    confidence: float = 60.0
    side: float = 64.0
    sharpness: float = 25.0


HQ = Quality()


@dataclass(frozen=True, slots=True)
class _Face:
    place: str
    photo: str
    number: str
    box: Box
    confidence: float
    label: str


def _face(place: str, line: str) -> _Face:
    fields = line.rsplit(maxsplit=7)
    try:
        name, number, *numbers, label = fields
        top, left, right, bottom, confidence = map(float, numbers)
    except ValueError:
        raise UserError(
            f"{place}: eight fields are needed: image name, face number, top, left, right, bottom, "
            "confidence, expression"
        ) from None
    if Path(name).name != name or not number.isalnum():
        raise UserError(f"{place}: '{name} {number}' is not a file name and a face number")
    box = Box(left, top, right - left, bottom - top)
    return _Face(place, name, number, box, confidence, class_of(label, CLASSES, place))


def _photographs(source: Path, faces: Sequence[_Face]) -> Path:
    """The folder that holds the photographs, known by the first of them."""
    names = [f"{folder}/{faces[0].photo}" for folder in _IMAGE_FOLDERS]
    found = first_existing(source, names)
    if found is None:
        raise UserError(
            f"{faces[0].place}: no image at {source / names[0]}; unpack the photographs there"
        )
    return found.parent


def _lacking(face: Image, listed: _Face, quality: Quality) -> str | None:
    """Why a face is not of high quality, or None where it is."""
    if listed.confidence < quality.confidence:
        return f"confidence under {quality.confidence:g}"
    if max(listed.box.w, listed.box.h) < quality.side:
        return f"box under {quality.side:g} pixels"
    if sharpness(face) < quality.sharpness:
        return f"sharpness under {quality.sharpness:g}"
    return None


def import_expw(*, source: Path, out: Path, seed: int, quality: Quality = HQ) -> dict[str, Any]:
    """ExpW → `out/manifest.csv` and its part of high `quality`, `out/hq.csv`; returns both reports.

    `source` holds `label.lst` and the photographs (`image/origin`). The faces are cut out under
    `out/images`; `test`, `val` and `calib` are a tenth each, cut so that the faces of a photograph
    stay together, and a face has the same split in both manifests. Raises `UserError` naming the
    file and line of a fault.
    """
    lost: Counter[str] = Counter()
    file = first_existing(source, _LABEL_FILES) or source / _LABEL_FILES[0]
    listed = [_face(place, line) for place, line in lines(file)]
    keys = [f"{face.photo} {face.number}" for face in listed]
    contents = [(face.box, face.confidence, face.label) for face in listed]
    faces = [listed[i] for i in listed_once(keys, contents, "labels or boxes", lost)]
    if not faces:
        raise UserError(f"{file}: holds no usable line; copy it again")
    folder = _photographs(source, faces)
    make_folder(out / "images")
    by_photo: dict[str, list[_Face]] = defaultdict(list)
    for face in faces:
        by_photo[face.photo].append(face)
    samples: list[Sample] = []
    lacks: list[str | None] = []
    for name, shown in tqdm(by_photo.items(), "cutting", unit="photograph", disable=None):
        photo = photograph(folder / name, shown[0].place)
        for face in shown:
            fault = fault_of(photo, face.box)
            if fault is not None:
                lost[fault] += 1
                continue
            path = out / "images" / f"{name.replace('.', '_')}_{face.number}.jpg"
            cut = save_face(photo, face.box, path)
            samples.append(Sample(path, face.label, "train", face.place, group=name))
            lacks.append(_lacking(cut, face, quality))
    rows = divide(
        samples, data_set="expw", source=source, out=out, seed=seed, lost=lost, cut_test=True
    )
    kept = [row for row in rows if row is not None]
    best: list[Row] = [row for row, lack in zip(rows, lacks, strict=True) if row and not lack]
    failed = Counter(lack for lack in lacks if lack)
    hq = {"thresholds": asdict(quality), **summary(best, failed)}
    report = write(
        out, kept, data_set="expw", protocol="single label", seed=seed, lost=lost,
        more={"hq": (best, hq)},
    )  # fmt: skip
    return {"expw": report, "expw hq": hq}
