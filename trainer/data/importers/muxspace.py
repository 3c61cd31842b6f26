"""muxspace/facial_expressions: press photos and film stills, one label each."""

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.expressions import INDEX
from trainer.data.importers._common import (
    NAMES,
    Sample,
    divide,
    fingerprint,
    listed_once,
    make_folder,
    records,
    unpacked,
    write,
)


def _labels(file: Path, lost: Counter[str]) -> dict[str, str]:
    """Image name → expression, by name."""
    listed = []
    for place, record in records(file, ("image", "emotion")):
        emotion = NAMES.get(record["emotion"].strip().lower())
        if emotion is None:
            raise UserError(f"{place}: unknown emotion '{record['emotion']}'; correct the label")
        if emotion in INDEX:
            listed.append((record["image"].strip(), emotion))
        else:
            lost[f"{emotion} is not one of the seven"] += 1
    keys, contents = [name for name, _ in listed], [emotion for _, emotion in listed]
    return dict(sorted(listed[i] for i in listed_once(keys, contents, "labels", lost)))


def import_muxspace(*, source: Path, out: Path, seed: int) -> dict[str, Any]:
    """muxspace/facial_expressions → `out` manifest, split by person 80/10/10; returns the report.

    `source` holds `legend.csv` and the images. Labels are read whatever their case; `contempt` is
    dropped; an image listed twice is kept once, or not at all where its labels disagree. The person
    is the file name up to its number (`Aaron_Peirsol_0001.jpg`). Raises `UserError` naming the file
    and line of a fault.
    """
    lost: Counter[str] = Counter()
    legend = source / "legend.csv"
    kept = _labels(legend, lost)
    make_folder(out)
    images = unpacked(source, out)
    folder = images / "images" if (images / "images").is_dir() else images
    by_pixels: dict[str, list[str]] = defaultdict(list)
    for name in kept:
        by_pixels[fingerprint(folder / name, str(legend))[0]].append(name)
    for same in by_pixels.values():
        clash = len({kept[name] for name in same}) > 1
        lost["same pixels under different labels" if clash else "same pixels twice"] += (
            len(same) if clash else len(same) - 1
        )
        for name in same if clash else same[1:]:
            del kept[name]
    samples = [
        Sample(
            image=folder / name,
            label=label,
            split="train",
            place=str(legend),
            group=re.sub(r"_?\d*$", "", Path(name).stem) or name,
        )
        for name, label in kept.items()
    ]
    rows = divide(samples, data_set="muxspace", source=source, out=out, seed=seed, lost=lost)
    kept_rows = [row for row in rows if row is not None]
    report = write(
        out, kept_rows, data_set="muxspace", protocol="single label", seed=seed, lost=lost
    )
    return {"muxspace": report}
