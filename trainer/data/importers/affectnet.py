"""AffectNet: faces found on the web, one label each (Mollahosseini et al., 1708.03985)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from contract.errors import UserError
from contract.expressions import INDEX
from contract.faces import Box
from trainer.data.importers._common import (
    NAMES,
    Sample,
    class_of,
    divide,
    first_existing,
    inside,
    labelled_folders,
    lines,
    listed_once,
    write,
)
from trainer.data.importers._crops import fault_of, photograph, save_face

CLASSES = (
    "neutral", "happy", "sad", "surprise", "fear", "disgust", "angry",
    "contempt", "none", "uncertain", "no face",
)  # fmt: skip
_FOLDERS = {**NAMES, **{str(number): name for number, name in enumerate(CLASSES)}}
_SETS = (("train_set", "train"), ("val_set", "val"))
_LISTS = (("training.csv", "train"), ("validation.csv", "val"))
_LIST_FOLDERS = (
    ".", "Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_file_lists",
)  # fmt: skip
_IMAGE_FOLDERS = (
    "Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated", ".",
)  # fmt: skip
_COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
    "facial_landmarks", "expression", "valence", "arousal",
)  # fmt: skip


def _annotated(folder: Path, split: str, lost: Counter[str]) -> list[Sample]:
    """`images/<id>.jpg` with `annotations/<id>_exp.npy`, by id."""
    samples = []
    annotations = sorted((folder / "annotations").glob("*_exp.npy"))
    if not annotations:
        raise UserError(f"{folder / 'annotations'}: holds no *_exp.npy; unpack AffectNet again")
    for file in tqdm(annotations, f"reading {folder.name}", disable=None):
        try:
            # A number or a text such as '3'; an array of objects would need unpickling.
            number = str(np.load(file, allow_pickle=False).item())
        except (ValueError, EOFError, OSError) as error:
            raise UserError(f"{file}: not one plain number ({error}); copy it again") from None
        name = class_of(number, CLASSES, str(file))
        if name not in INDEX:
            lost[f"{name} is not one of the seven"] += 1
            continue
        stem = file.name.removesuffix("_exp.npy")
        image = first_existing(folder / "images", (f"{stem}.jpg", f"{stem}.png"))
        samples.append(Sample(image or folder / f"images/{stem}.jpg", name, split, str(file)))
    return samples


def _list(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a file list with their place; the published validation list has no header."""
    columns: tuple[str, ...] = _COLUMNS
    for place, line in lines(file):
        fields = line.split(",")  # nothing in the lists is quoted
        if fields[0] == _COLUMNS[0]:
            columns = tuple(fields)
            continue
        if len(fields) != len(columns) or "expression" not in columns:
            raise UserError(f"{place}: {len(_COLUMNS)} fields ({', '.join(_COLUMNS)}) are needed")
        yield place, dict(zip(columns, fields, strict=True))


def _box(record: dict[str, str], place: str) -> Box:
    try:
        return Box(*(float(record[name]) for name in _COLUMNS[1:5]))
    except (KeyError, ValueError):
        raise UserError(
            f"{place}: face_x, face_y, face_width, face_height are not numbers"
        ) from None


def _boxed(
    source: Path, file: Path, split: str, out: Path, lost: Counter[str]
) -> list[Sample]:  # fmt: skip
    """The faces of a file list, cut out of their photographs under `out/images`."""
    listed = []
    for place, record in _list(file):
        name = class_of(record["expression"], CLASSES, place)
        if name in INDEX:
            path = inside(record["subDirectory_filePath"], place)
            listed.append((path, place, name, _box(record, place)))
        else:
            lost[f"{name} is not one of the seven"] += 1
    once = listed_once([r[0] for r in listed], [r[2:] for r in listed], "labels or boxes", lost)
    samples = []
    for path, place, name, box in tqdm(
        [listed[i] for i in once], f"cutting {file.name}", disable=None
    ):
        found = first_existing(source, [f"{folder}/{path}" for folder in _IMAGE_FOLDERS])
        photo = photograph(found or source / _IMAGE_FOLDERS[0] / path, place)
        fault = fault_of(photo, box)
        if fault is not None:
            lost[fault] += 1
            continue
        face = out / "images" / Path(path).with_suffix(".jpg")
        save_face(photo, box, face)
        samples.append(Sample(face, name, split, place))
    return samples


def _samples(source: Path, out: Path, lost: Counter[str]) -> list[Sample]:
    if (source / "train_set").is_dir():
        sets = [(source / name, split) for name, split in _SETS if (source / name).is_dir()]
        return [sample for folder, split in sets for sample in _annotated(folder, split, lost)]
    lists = [
        (found, split)
        for name, split in _LISTS
        if (found := first_existing(source, [f"{folder}/{name}" for folder in _LIST_FOLDERS]))
    ]
    if lists:
        return [
            sample for file, split in lists for sample in _boxed(source, file, split, out, lost)
        ]
    if (source / "train").is_dir():
        return labelled_folders(source, _FOLDERS, lost)
    raise UserError(
        f"{source}: has neither train_set, training.csv nor a folder train; "
        "name the folder that holds AffectNet"
    )


def import_affectnet(*, source: Path, out: Path, seed: int) -> dict[str, Any]:
    """AffectNet in any of its three forms → `out` manifest; returns the report.

    `source` holds `train_set` and `val_set` (`images`, `annotations/*_exp.npy`); or `training.csv`
    and `validation.csv` with the photographs, whose face boxes are cut out under `out/images`; or
    `train/<class>` and `val/<class>` folders, by name or number. Contempt and what is no expression
    is dropped. Raises `UserError` naming the file and line of a fault.
    """
    lost: Counter[str] = Counter()
    samples = _samples(source, out, lost)
    rows = divide(samples, data_set="affectnet", source=source, out=out, seed=seed, lost=lost)
    kept = [row for row in rows if row is not None]
    report = write(out, kept, data_set="affectnet", protocol="single label", seed=seed, lost=lost)
    return {"affectnet": report}
