"""Data sets in their own layouts → manifests with the seven expressions.

Every importer reads a folder as its authors ship it, writes images and manifests under another
folder, and returns a report of what it kept and what it dropped, and why.
"""

import csv
import hashlib
import os
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import sha256_file, write_json_atomic
from contract.manifest import SPLITS, Row, write_manifest
from trainer.data.splits import counts, cut_groups

CALIB_SHARE = 0.10

FERPLUS_COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger",
    "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
_CANONICAL = {
    "neutral": "neutral",
    "happiness": "happy",
    "surprise": "surprise",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
}
_USAGE = {
    "Training": ("FER2013Train", "train"),
    "PublicTest": ("FER2013Valid", "val"),
    "PrivateTest": ("FER2013Test", "test"),
}
PROTOCOLS = ("argmax", "strict")


def ferplus_label(votes: tuple[int, ...], protocol: str) -> str | None:
    """The expression of ten FER+ votes (Barsoum et al., 2016), or None where the row is dropped.

    argmax: the column with most votes, ties to the first. strict: single votes are dropped, then
    the top needs more than half of what is left. Contempt, unknown and not-a-face drop the row.
    """
    counted = votes
    if protocol == "strict":
        counted = tuple(v if v > 1 else 0 for v in votes)
        if max(counted) * 2 <= sum(counted):
            return None
    return _CANONICAL.get(FERPLUS_COLUMNS[counted.index(max(counted))])


def _seven(votes: tuple[int, ...]) -> tuple[float, ...]:
    """The votes of the seven expressions, in their order."""
    by_column = dict(zip(FERPLUS_COLUMNS, votes, strict=True))
    by_name = {name: by_column[column] for column, name in _CANONICAL.items()}
    return tuple(float(by_name[name]) for name in EXPRESSIONS)


def _records(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a source CSV with their place, for messages."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            for name in columns:
                if name not in (reader.fieldnames or ()):
                    raise UserError(
                        f"{file}: line 1: column '{name}' is missing; is it the right file?"
                    )
            for record in reader:
                yield f"{file}: line {reader.line_num}", record
    except FileNotFoundError:
        raise UserError(f"{file} is missing; name the folder that holds it") from None


def _unpack(source: Path, out: Path) -> Path:
    """The folder with the images: `source` itself, or its images.tar unpacked under `out`."""
    archive = source / "images.tar"
    if not archive.is_file():
        return source
    target = out / "images"
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
    except tarfile.TarError as error:
        raise UserError(f"{archive}: not a readable tar archive ({error}); copy it again") from None
    return target


def _pixel_hash(path: Path, place: str) -> str:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise UserError(f"{place}: {path} cannot be decoded as an image; restore the file")
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _write(folder: Path, rows: list[Row], report: dict[str, Any]) -> dict[str, Any]:
    """manifest.csv, a CSV per split, and the report with its counts; returns the report."""
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / "manifest.csv", rows)
    for split in SPLITS:
        part = [row for row in rows if row.split == split]
        if part:
            write_manifest(folder / f"{split}.csv", part)
    report["kept"] = {
        split: counts(row.label for row in rows if row.split == split)
        for split in SPLITS
        if any(row.split == split for row in rows)
    }
    report["rows"] = counts(row.split for row in rows)
    report["sha256"] = {file.name: sha256_file(file) for file in sorted(folder.glob("*.csv"))}
    write_json_atomic(folder / "import_report.json", report)
    return report


def _ferplus_votes(source: Path) -> list[tuple[str, str, str, tuple[int, ...]]]:
    """(place, usage, image name, ten votes) of every row that has an image."""
    rows = []
    for place, record in _records(source / "fer2013new.csv", ("Usage", "Image name")):
        if not record["Image name"]:
            continue
        if record["Usage"] not in _USAGE:
            raise UserError(f"{place}: unknown Usage '{record['Usage']}'; the file is damaged")
        try:
            votes = tuple(int(record[column]) for column in FERPLUS_COLUMNS)
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{place}: ten whole-number vote columns are needed") from None
        rows.append((place, record["Usage"], record["Image name"], votes))
    return rows


def import_ferplus(*, source: Path, out: Path, seed: int) -> dict[str, Any]:
    """FER+ (FER2013 images with ten votes each) → `out/argmax` and `out/strict` manifests.

    `source` holds `fer2013new.csv`, the images (`images.tar` or its folders), and optionally
    `twins_of_test.txt`. Training images listed there, or pixel-identical to a PublicTest or
    PrivateTest image, are dropped; a seeded tenth of Training becomes `calib`, duplicate groups
    kept whole. Raises `UserError` naming the file and line of a fault.
    """
    records = _ferplus_votes(source)
    images = _unpack(source, out)
    twins_file = source / "twins_of_test.txt"
    twins = set(twins_file.read_text().split()) if twins_file.is_file() else set()

    paths, pixels = [], []
    for place, usage, name, _ in records:
        path = images / _USAGE[usage][0] / name
        if not path.is_file():
            raise UserError(f"{place}: no image at {path}; unpack images.tar beside the CSV again")
        paths.append(path)
        pixels.append(_pixel_hash(path, place))
    held = {pixel for pixel, r in zip(pixels, records, strict=True) if r[1] != "Training"}
    copies = Counter(pixels)

    def dropped(position: int) -> str | None:
        _, usage, name, _ = records[position]
        if usage != "Training":
            return None
        if name in twins:
            return "training image with a twin in test"
        return "training copy of a val or test image" if pixels[position] in held else None

    reasons = [dropped(position) for position in range(len(records))]
    # The calib split is cut before a protocol drops rows, so both protocols share one cut.
    training = [i for i, r in enumerate(records) if r[1] == "Training" and reasons[i] is None]
    tops = [FERPLUS_COLUMNS[records[i][3].index(max(records[i][3]))] for i in training]
    cut = cut_groups(training, [pixels[i] for i in training], tops, CALIB_SHARE, seed)
    calib = {training[position] for position in cut}

    reports = {}
    for protocol in PROTOCOLS:
        folder = out / protocol
        rows, lost = [], Counter(reason for reason in reasons if reason)
        for i, (_, usage, _, votes) in enumerate(records):
            if reasons[i]:
                continue
            label = ferplus_label(votes, protocol)
            if label is None:
                lost[f"no expression by the {protocol} protocol ({_USAGE[usage][1]})"] += 1
                continue
            rows.append(
                Row(
                    path=os.path.relpath(paths[i], folder),
                    label=label,
                    split="calib" if i in calib else _USAGE[usage][1],
                    source="ferplus",
                    votes=_seven(votes),
                    group=pixels[i][:16] if copies[pixels[i]] > 1 else "",
                    sha256=sha256_file(paths[i]),
                )
            )
        report = {"data_set": "ferplus", "protocol": protocol, "seed": seed, "dropped": dict(lost)}
        reports[protocol] = _write(folder, rows, report)
    return reports


def import_muxspace(*, source: Path, out: Path, seed: int) -> dict[str, Any]:
    """muxspace/facial_expressions → `out` manifest, split by person 80/10/10.

    `source` holds `legend.csv` and the images. Labels are read whatever their case; `contempt` is
    dropped; an image listed twice is kept once, or not at all where its labels disagree. The person
    is the file name up to its number (`Aaron_Peirsol_0001.jpg`).
    """
    images = _unpack(source, out)
    folder = images / "images" if (images / "images").is_dir() else images
    labels: dict[str, list[str]] = defaultdict(list)
    lost: Counter[str] = Counter()
    for place, record in _records(source / "legend.csv", ("image", "emotion")):
        name, emotion = record["image"].strip(), record["emotion"].strip().lower()
        if emotion == "contempt":
            lost["contempt is not one of the seven"] += 1
        elif emotion not in _CANONICAL:
            raise UserError(f"{place}: unknown emotion '{record['emotion']}'; correct the label")
        else:
            labels[name].append(_CANONICAL[emotion])
    kept = {}
    for name, given in sorted(labels.items()):
        if len(set(given)) > 1:
            lost["listed with different labels"] += len(given)
            continue
        lost["listed twice"] += len(given) - 1
        kept[name] = given[0]
    by_pixels: dict[str, list[str]] = defaultdict(list)
    for name in kept:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{source / 'legend.csv'}: no image at {path}; unpack images.tar again")
        by_pixels[_pixel_hash(path, str(source / "legend.csv"))].append(name)
    for same in by_pixels.values():
        clash = len({kept[name] for name in same}) > 1
        lost["same pixels under different labels" if clash else "same pixels twice"] += (
            len(same) if clash else len(same) - 1
        )
        for name in same if clash else same[1:]:
            del kept[name]
    names = list(kept)
    people = [re.sub(r"_?\d*$", "", Path(name).stem) or name for name in names]
    tags = [kept[name] for name in names]
    val = cut_groups(names, people, tags, 0.10, seed)
    rest = [i for i in range(len(names)) if i not in val]
    cut = cut_groups(
        rest, [people[i] for i in rest], [tags[i] for i in rest], CALIB_SHARE / 0.9, seed + 1
    )
    calib = {rest[position] for position in cut}
    rows = [
        Row(
            path=os.path.relpath(folder / name, out),
            label=tags[i],
            split="val" if i in val else "calib" if i in calib else "train",
            source="muxspace",
            group=people[i],
            sha256=sha256_file(folder / name),
        )
        for i, name in enumerate(names)
    ]
    report = {
        "data_set": "muxspace",
        "protocol": "single label",
        "seed": seed,
        "dropped": {reason: count for reason, count in lost.items() if count},
    }
    return {"muxspace": _write(out, rows, report)}


IMPORTERS = {"ferplus": import_ferplus, "muxspace": import_muxspace}
