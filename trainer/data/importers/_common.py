"""What every importer needs: reading label files by line, keeping images together, writing.

An importer lists its images as `Sample`s; `divide` drops training copies of held-back images and
cuts the splits the data set does not have; `write` makes the manifests and the report.
"""

import csv
import hashlib
import os
import tarfile
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from contract.errors import UserError, nearest
from contract.expressions import INDEX
from contract.files import sha256_file, write_json_atomic
from contract.manifest import SPLITS, Row, write_manifest
from trainer.data.splits import counts, cut_groups

PART_SHARE = 0.10
"""Share of the training images that each split cut from them gets."""

NAMES = {
    "angry": "angry", "anger": "angry",
    "disgust": "disgust", "disgusted": "disgust",
    "fear": "fear", "fearful": "fear",
    "happy": "happy", "happiness": "happy",
    "sad": "sad", "sadness": "sad",
    "surprise": "surprise", "surprised": "surprise",
    "neutral": "neutral",
    "contempt": "contempt",
}  # fmt: skip
"""What data sets call their classes → what we do; contempt is not one of the seven."""

_SPLIT_FOLDERS = {
    "train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


Extra = tuple[Sequence[Row], Mapping[str, Any]]
"""A further manifest: its rows, and what the report says about it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image as a data set lists it.

    `split` is train, val or test as its authors divide it; `place` begins a message about it.
    Images of one `group` (a person, a photograph) never stand on two sides of a cut.
    """

    image: Path
    label: str
    split: str
    place: str
    votes: tuple[float, ...] | None = None
    group: str = ""


def records(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV, each with its place for messages; the header's names are stripped.

    Raises `UserError` for a file that is missing, not text, or without one of the `columns`.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            for name in columns:
                if name not in reader.fieldnames:
                    raise UserError(
                        f"{file}: line 1: column '{name}' is missing; is it the right file?"
                    )
            for record in reader:
                yield f"{file}: line {reader.line_num}", record
    except FileNotFoundError:
        raise UserError(f"{file} is missing; name the folder that holds it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV text file ({error}); copy it again") from None


def lines(file: Path) -> Iterator[tuple[str, str]]:
    """The non-empty lines of a text file, each with its place for messages.

    Raises `UserError` for a file that is missing or not text.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield f"{file}: line {number}", line.strip()
    except FileNotFoundError:
        raise UserError(f"{file} is missing; name the folder that holds it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file ({error}); copy it again") from None


def class_of(number: str, classes: Sequence[str], place: str) -> str:
    """The class with a number. Raises `UserError` for what is no number of a class."""
    try:
        return classes[range(len(classes)).index(int(number))]
    except ValueError:
        raise UserError(
            f"{place}: unknown class '{number}'; expected 0 to {len(classes) - 1}"
        ) from None


def inside(name: str, place: str) -> str:
    """A relative path that stays in its folder. Raises `UserError` for any other."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{place}: '{name}' is not a file within the data set; correct the name")
    return name


def first_existing(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of several places in a folder that exists; `.` is the folder itself."""
    return next((folder / name for name in names if (folder / name).exists()), None)


def unpacked(source: Path, out: Path) -> Path:
    """The folder with the images: `source` itself, or its images.tar unpacked under `out`."""
    archive = source / "images.tar"
    if not archive.is_file():
        return source
    target = out / "images"
    make_folder(target)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
    except tarfile.TarError as error:
        raise UserError(f"{archive}: not a readable tar archive ({error}); copy it again") from None
    return target


def make_folder(folder: Path) -> None:
    """A folder to write to. Raises `UserError` where there cannot be one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write to {folder}: {reason.lower()}; name another with --out"
        ) from None


def labelled_folders(source: Path, classes: Mapping[str, str], lost: Counter[str]) -> list[Sample]:
    """The images of `<split>/<class>/`, by name; `classes` maps lower-case folder names.

    Raises `UserError` for a folder of a class that is not in `classes`.
    """
    samples = []
    for folder in sorted(source.iterdir()):
        split = _SPLIT_FOLDERS.get(folder.name.lower())
        if split is None or not folder.is_dir():
            continue
        for labelled in sorted(folder.iterdir()):
            name = labelled.name.lower()
            if not labelled.is_dir() or name.startswith("."):
                continue
            if name not in classes:
                raise UserError(
                    f"{labelled}: unknown class '{labelled.name}'{nearest(name, classes)}; "
                    "rename or remove the folder"
                )
            for image in sorted(labelled.iterdir()):
                if image.suffix.lower() not in _IMAGE_SUFFIXES:
                    continue
                if classes[name] in INDEX:
                    samples.append(Sample(image, classes[name], split, str(image)))
                else:
                    lost[f"{classes[name]} is not one of the seven"] += 1
    return samples


def listed_once(
    keys: Sequence[str], contents: Sequence[Hashable], what: str, lost: Counter[str]
) -> list[int]:
    """Positions left when a key listed twice is kept once, or not at all if its contents differ."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        positions[key].append(position)
    kept = []
    for same in positions.values():
        if len({contents[position] for position in same}) > 1:
            lost[f"listed with different {what}"] += len(same)
        else:
            lost["listed twice"] += len(same) - 1
            kept.append(same[0])
    return sorted(kept)


def fingerprint(path: Path, place: str) -> tuple[str, str]:
    """SHA-256 of an image's pixels and of its file, as hex digits.

    Raises `UserError` beginning with `place` for a file that is missing or cannot be decoded.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{place}: no image at {path}; unpack the images again") from None
    data = np.frombuffer(content, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if image is None:
        raise UserError(f"{place}: {path} cannot be decoded as an image; restore the file")
    pixels = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    return pixels, hashlib.sha256(content).hexdigest()


def joined(pixels: Sequence[str], names: Sequence[str]) -> list[str]:
    """A group for every image: same pixels or same (non-empty) name is the same group.

    The result is a name where the group has one, else the pixels' hash, shortened; images that
    are alone and without a name get an empty string.
    """
    above: dict[tuple[int, str], tuple[int, str]] = {}

    def top(key: tuple[int, str]) -> tuple[int, str]:
        while above.setdefault(key, key) != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    for pixel, name in zip(pixels, names, strict=True):
        if name:
            low, high = sorted((top((0, name)), top((1, pixel))))
            above[high] = low
    tops = [top((1, pixel)) for pixel in pixels]
    size = Counter(tops)
    return [
        key[1] if key[0] == 0 else key[1][:16] if size[key] > 1 else "" for key in tops
    ]  # fmt: skip


def cut_parts(
    groups: Sequence[Hashable], labels: Sequence[str], parts: Sequence[str], seed: int
) -> dict[int, str]:
    """Position → part for what is cut off: a tenth of the whole each, no group divided."""
    chosen: dict[int, str] = {}
    for number, part in enumerate(parts):
        rest = [position for position in range(len(groups)) if position not in chosen]
        cut = cut_groups(
            rest,
            [groups[position] for position in rest],
            [labels[position] for position in rest],
            PART_SHARE / (1 - number * PART_SHARE),
            seed + number,
        )
        chosen.update((rest[position], part) for position in cut)
    return chosen


def divide(
    samples: Sequence[Sample], *, data_set: str, source: Path, out: Path, seed: int,
    lost: Counter[str], cut_test: bool = False,
) -> list[Row | None]:  # fmt: skip
    """The manifest row of every sample, or None for a training copy of a held-back image.

    `calib`, and `val` where the data set has none (and with `cut_test` first a `test`), are cut
    from the training images by the seed, groups kept whole. Raises `UserError` naming the place of
    an image that is missing or damaged, or the `source` when nothing is there to import.
    """
    if not samples:
        raise UserError(f"{source}: holds no image of the seven expressions; is it the right one?")
    make_folder(out)
    prints = [fingerprint(s.image, s.place) for s in tqdm(samples, "reading", disable=None)]
    pixels = [pixel for pixel, _ in prints]
    groups = joined(pixels, [sample.group for sample in samples])
    held = {pixel for pixel, s in zip(pixels, samples, strict=True) if s.split != "train"}
    training = []
    for position, sample in enumerate(samples):
        if sample.split != "train":
            continue
        if pixels[position] in held:
            lost["training copy of a val or test image"] += 1
        else:
            training.append(position)
    parts = ["test"] if cut_test else []
    parts += [] if any(sample.split == "val" for sample in samples) else ["val"]
    cut = cut_parts(
        [groups[position] or pixels[position] for position in training],
        [samples[position].label for position in training],
        [*parts, "calib"],
        seed,
    )
    splits = {position: cut.get(n, "train") for n, position in enumerate(training)}

    def row(position: int, sample: Sample) -> Row | None:
        if sample.split == "train" and position not in splits:
            return None
        return Row(
            path=os.path.relpath(sample.image, out),
            label=sample.label,
            split=splits.get(position, sample.split),
            source=data_set,
            votes=sample.votes,
            group=groups[position],
            sha256=prints[position][1],
        )

    return [row(position, sample) for position, sample in enumerate(samples)]


def summary(rows: Sequence[Row], lost: Mapping[str, int]) -> dict[str, Any]:
    """Rows by split, by split and label, and what was dropped, by reason."""
    present = [split for split in SPLITS if any(row.split == split for row in rows)]
    return {
        "dropped": {reason: count for reason, count in lost.items() if count},
        "kept": {s: counts(row.label for row in rows if row.split == s) for s in present},
        "rows": counts(row.split for row in rows),
    }


def write(
    folder: Path, rows: Sequence[Row], *, data_set: str, protocol: str, seed: int,
    lost: Mapping[str, int], more: Mapping[str, Extra] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """manifest.csv, a CSV per split and clean_report.json in a folder; returns the report.

    `more` holds further manifests by name.
    """
    make_folder(folder)
    manifests = {"manifest": rows}
    manifests |= {split: [row for row in rows if row.split == split] for split in SPLITS}
    manifests |= {name: part for name, (part, _) in (more or {}).items()}
    hashes = {}
    for name, part in manifests.items():
        file = folder / f"{name}.csv"
        if part:
            write_manifest(file, part)
            hashes[file.name] = sha256_file(file)
        else:  # one of an earlier import would be taken for a part of this one
            file.unlink(missing_ok=True)
    report = {
        "data_set": data_set,
        "protocol": protocol,
        "seed": seed,
        **summary(rows, lost),
        **{name: said for name, (_, said) in (more or {}).items()},
        "sha256": dict(sorted(hashes.items())),
    }
    write_json_atomic(folder / "clean_report.json", report)
    return report
