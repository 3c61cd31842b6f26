"""Writing data sets as their authors ship them, and what every importer's tests ask of a result."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import UserError
from contract.files import sha256_file
from contract.manifest import SPLITS, Manifest, read_manifest
from tests.trainer.data_sets import pixels

Importer = Callable[..., dict[str, Any]]


def save(path: Path, seed: int, shape: tuple[int, ...] = (12, 12)) -> Path:
    """An image of its own for every seed. A PNG keeps its pixels, a JPEG nearly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels(seed, shape))
    return path


def text(path: Path, *rows: str) -> Path:
    """A text file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def photograph(seed: int, height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """A dark colour photograph, so that a bright face in it is found again."""
    return pixels(seed, (height, width, 3)) // 4


def stems(manifest: Manifest, split: str | None = None) -> list[str]:
    """The file names without their ends, of one split or of all."""
    return [Path(row.path).stem for row in manifest.rows if split in (None, row.split)]


def labels(manifest: Manifest) -> dict[str, str]:
    """Expression by file name."""
    return {Path(row.path).name: row.label for row in manifest.rows}


def refused(importer: Importer, source: Path, out: Path) -> str:
    """The one line an import is refused with."""
    with pytest.raises(UserError) as raised:
        importer(source=source, out=out, seed=1)
    assert not list(out.rglob("*.csv")), "a refused import leaves no manifest"
    return str(raised.value)


def check(out: Path, report: Mapping[str, Any]) -> Manifest:
    """What holds for every import; returns its manifest.

    The files of the splits and the counts agree with the manifest, hashes are those of the files,
    and no two rows of the same pixels or group stand in train or calib and elsewhere.
    """
    whole = read_manifest(out / "manifest.csv")
    assert report["rows"] == Counter(row.split for row in whole.rows)
    for split in SPLITS:
        part = whole.select(split)
        assert (out / f"{split}.csv").exists() == bool(part.rows)
        if part.rows:
            assert read_manifest(out / f"{split}.csv").rows == part.rows
            assert report["kept"][split] == Counter(row.label for row in part.rows)
    assert report["sha256"] == {file.name: sha256_file(file) for file in out.glob("*.csv")}
    sides: dict[str, set[str]] = defaultdict(set)
    for row in whole.rows:
        assert row.sha256 == sha256_file(whole.path(row))
        content = cv2.imread(str(whole.path(row)), cv2.IMREAD_UNCHANGED)
        assert content is not None
        sides[f"pixels {content.tobytes()!r}"].add(row.split)
        if row.group:
            sides[f"group {row.group}"].add(row.split)
    for found in sides.values():
        assert len(found) == 1 or found <= {"val", "test"}
    return whole
