"""What the RAF data sets share: their label lines and where their faces are."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.faces import Box
from trainer.data.importers._common import (
    Sample,
    divide,
    first_existing,
    inside,
    lines,
    listed_once,
    write,
)
from trainer.data.importers._crops import fault_of, photograph, save_face

# The authors' spelling first; the mended one is met in copies.
LABEL_FILES = ("list_patition_label.txt", "list_partition_label.txt")


def root_of(source: Path, names: tuple[str, ...]) -> Path:
    """The folder that holds EmoLabel: `source` or one of its folders. Raises `UserError`."""
    root = next(
        (r for r in (source, *(source / n for n in names)) if (r / "EmoLabel").is_dir()), None
    )
    if root is None:
        raise UserError(f"{source / 'EmoLabel'} is missing; name the folder that holds EmoLabel")
    return root


def label_file(root: Path, names: tuple[str, ...]) -> Path:
    """The first of several files in EmoLabel that exists. Raises `UserError`."""
    file = first_existing(root / "EmoLabel", names)
    if file is None:
        raise UserError(f"{root / 'EmoLabel' / names[0]} is missing; unpack the labels again")
    return file


def name_and_number(line: str, place: str) -> tuple[str, str]:
    """The two fields of a label line. Raises `UserError` beginning with `place` for others."""
    fields = line.rsplit(maxsplit=1)
    if len(fields) != 2:
        raise UserError(f"{place}: an image name and a number are needed, not '{line}'")
    return fields[0], fields[1]


def _original_box(root: Path, stem: str, place: str) -> Box:
    names = [
        f"Annotation/{f}/{stem}_boundingbox.txt" for f in ("boundingbox", "boundingbox/boundingbox")
    ]
    file = first_existing(root, names)
    if file is None:
        raise UserError(
            f"{place}: no aligned image, and no face box at {root / names[0]}; "
            "unpack Image/aligned, or Image/original with Annotation/boundingbox"
        )
    try:
        left, top, right, bottom = map(float, file.read_text().split())
    except ValueError:
        raise UserError(f"{file}: four numbers (left, top, right, bottom) are needed") from None
    return Box(left, top, right - left, bottom - top)


def face_of(root: Path, name: str, place: str, out: Path) -> Path:
    """The aligned face of an image, or else its box cut out of the original under `out/images`.

    Raises `UserError` beginning with `place` where there is neither.
    """
    stem = Path(inside(name, place)).stem
    aligned = first_existing(
        root, [f"Image/{f}/{stem}_aligned.jpg" for f in ("aligned", "aligned/aligned")]
    )
    if aligned is not None:
        return aligned
    original = first_existing(
        root, [f"Image/{f}/{name}" for f in ("original", "original/original")]
    )
    if original is None:
        raise UserError(
            f"{place}: no image at {root / 'Image/aligned' / f'{stem}_aligned.jpg'}; "
            "unpack Image/aligned again"
        )
    box = _original_box(root, stem, place)
    photo = photograph(original, place)
    fault = fault_of(photo, box)
    if fault is not None:
        raise UserError(f"{place}: {fault}; correct its file in Annotation/boundingbox")
    path = out / "images" / f"{stem}.jpg"
    save_face(photo, box, path)
    return path


def import_partitioned(
    *, data_set: str, root: Path, classes: Mapping[str, str], protocol: str, out: Path,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """A RAF-DB subset, whose image names begin with their split, → `out` manifest and its report.

    `classes` maps the numbers of its label file to expressions. Raises `UserError` naming the file
    and line of a fault.
    """
    lost: Counter[str] = Counter()
    listed = []
    for place, line in lines(label_file(root, LABEL_FILES)):
        name, number = name_and_number(line, place)
        split = name.partition("_")[0]
        if split not in ("train", "test"):
            raise UserError(f"{place}: '{name}' begins with neither train_ nor test_; correct it")
        if number not in classes:
            raise UserError(f"{place}: unknown class '{number}'; expected 1 to {len(classes)}")
        listed.append((place, name, split, classes[number]))
    once = listed_once([r[1] for r in listed], [r[3] for r in listed], "labels", lost)
    samples = [
        Sample(face_of(root, name, place, out), label, split, place)
        for place, name, split, label in (listed[i] for i in once)
    ]
    rows = divide(samples, data_set=data_set, source=root, out=out, seed=seed, lost=lost)
    kept = [row for row in rows if row is not None]
    return {data_set: write(out, kept, data_set=data_set, protocol=protocol, seed=seed, lost=lost)}
