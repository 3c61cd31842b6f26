"""FER+: the images of FER2013 with ten votes each (Barsoum et al., 1608.01041)."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.expressions import EXPRESSIONS, INDEX
from contract.manifest import Row
from trainer.data.importers._common import (
    NAMES,
    cut_parts,
    fingerprint,
    make_folder,
    records,
    unpacked,
    write,
)

FERPLUS_COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger",
    "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip
_COLUMN_OF = {NAMES[c]: i for i, c in enumerate(FERPLUS_COLUMNS) if NAMES.get(c) in INDEX}
_USAGE = {
    "Training": ("FER2013Train", "train"),
    "PublicTest": ("FER2013Valid", "val"),
    "PrivateTest": ("FER2013Test", "test"),
}
PROTOCOLS = ("argmax", "strict", "votes")
ORIGINAL = "fer2013"
"""The labels the images had before FER+ asked again, where somebody found them."""
ORIGINAL_FILE = "fer2013_labels.csv"


def ferplus_label(votes: tuple[int, ...], protocol: str) -> str | None:
    """The expression of ten FER+ votes, or None where the row is dropped; ties to the first column.

    argmax: the top column; contempt, unknown and not-a-face drop the row. strict: single votes are
    dropped, then the top needs more than half of what is left, and the same three drop the row.
    votes: the top of the seven expressions alone, whatever else was voted for; only a row without
    a vote for any of them, or whose top column is not-a-face, is dropped.
    """
    if protocol == "votes":
        nothing = votes.index(max(votes)) == FERPLUS_COLUMNS.index("NF")
        seven = votes[: len(EXPRESSIONS)]  # the other three columns are the last
        return (
            None if nothing or not any(seven) else NAMES[FERPLUS_COLUMNS[seven.index(max(seven))]]
        )
    counted = votes
    if protocol == "strict":
        counted = tuple(v if v > 1 else 0 for v in votes)
        if max(counted) * 2 <= sum(counted):
            return None
    name = NAMES.get(FERPLUS_COLUMNS[counted.index(max(counted))])
    return name if name in INDEX else None


def _seven(votes: tuple[int, ...]) -> tuple[float, ...]:
    """The votes of the seven expressions, in their order."""
    return tuple(float(votes[_COLUMN_OF[name]]) for name in EXPRESSIONS)


def _votes(source: Path) -> list[tuple[str, str, str, tuple[int, ...]]]:
    """(place, usage, image name, ten votes) of every row that has an image."""
    rows = []
    for place, record in records(source / "fer2013new.csv", ("Usage", "Image name")):
        if not record["Image name"]:
            continue
        if record["Usage"] not in _USAGE:
            raise UserError(f"{place}: unknown Usage '{record['Usage']}'; the file is damaged")
        try:
            votes = tuple(int(record[column]) for column in FERPLUS_COLUMNS)
        except (KeyError, ValueError):
            raise UserError(f"{place}: ten whole-number vote columns are needed") from None
        rows.append((place, record["Usage"], record["Image name"], votes))
    if not rows:
        raise UserError(f"{source / 'fer2013new.csv'}: no row has an image; copy the file again")
    return rows


def _original(source: Path) -> dict[str, str]:
    """The FER2013 label of every image that has one in the optional file."""
    file = source / ORIGINAL_FILE
    if not file.is_file():
        return {}
    found = {}
    for place, record in records(file, ("Image name", "emotion")):
        label = record["emotion"]
        if label not in INDEX:
            raise UserError(
                f"{place}: unknown emotion '{label}'; expected one of {' '.join(EXPRESSIONS)}"
            )
        found[record["Image name"]] = label
    return found


def import_ferplus(*, source: Path, out: Path, seed: int) -> dict[str, Any]:
    """FER+ → manifests `out/argmax`, `out/strict` and `out/votes`; returns their reports.

    `source` holds `fer2013new.csv`, the images (`images.tar` or its folders), and optionally
    `twins_of_test.txt` and `fer2013_labels.csv`, which makes another manifest, `out/fer2013`, of
    the images that have a label there. Training images listed as twins, or pixel-identical to a
    PublicTest or PrivateTest image, are dropped; a seeded tenth of Training becomes `calib`,
    duplicate groups kept whole. Raises `UserError` naming the file and line of a fault.
    """
    listed = _votes(source)
    make_folder(out)
    images = unpacked(source, out)
    twins_file = source / "twins_of_test.txt"
    twins = set(twins_file.read_text().split()) if twins_file.is_file() else set()

    paths = [images / _USAGE[usage][0] / name for _, usage, name, _ in listed]
    prints = [fingerprint(path, r[0]) for path, r in zip(paths, listed, strict=True)]
    pixels = [pixel for pixel, _ in prints]
    held = {pixel for pixel, r in zip(pixels, listed, strict=True) if r[1] != "Training"}
    copies = Counter(pixels)

    def dropped(position: int) -> str | None:
        _, usage, name, _ = listed[position]
        if usage != "Training":
            return None
        if name in twins:
            return "training image with a twin in test"
        return "training copy of a val or test image" if pixels[position] in held else None

    reasons = [dropped(position) for position in range(len(listed))]
    # The calib split is cut before a protocol drops rows, so all protocols share one cut.
    training = [i for i, r in enumerate(listed) if r[1] == "Training" and reasons[i] is None]
    tops = [FERPLUS_COLUMNS[listed[i][3].index(max(listed[i][3]))] for i in training]
    cut = cut_parts([pixels[i] for i in training], tops, ["calib"], seed)
    calib = {training[position] for position in cut}

    original = _original(source)
    reports = {}
    for protocol in (*PROTOCOLS, *([ORIGINAL] if original else [])):
        folder = out / protocol
        rows, lost = [], Counter(reason for reason in reasons if reason)
        for i, (_, usage, name, votes) in enumerate(listed):
            if reasons[i]:
                continue
            known = protocol == ORIGINAL
            label = original.get(name) if known else ferplus_label(votes, protocol)
            if label is None:
                why = "no FER2013 label" if known else f"no expression by the {protocol} protocol"
                lost[f"{why} ({_USAGE[usage][1]})"] += 1
                continue
            rows.append(
                Row(
                    path=os.path.relpath(paths[i], folder),
                    label=label,
                    split="calib" if i in calib else _USAGE[usage][1],
                    source="ferplus",
                    votes=None if known else _seven(votes),
                    group=pixels[i][:16] if copies[pixels[i]] > 1 else "",
                    sha256=prints[i][1],
                )
            )
        reports[protocol] = write(
            folder, rows, data_set="ferplus", protocol=protocol, seed=seed, lost=lost
        )
    return reports
