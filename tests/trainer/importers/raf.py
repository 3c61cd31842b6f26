"""RAF's layout: EmoLabel, Image/aligned and Image/original with Annotation/boundingbox."""

from collections.abc import Iterable
from pathlib import Path

import cv2

from tests.trainer.importers.layouts import photograph, save, text

BOX = (40, 30, 80, 90)
"""Left, top, right, bottom of the face in every photograph of `original`."""


def aligned(root: Path, names: Iterable[str], seeds: dict[str, int] | None = None) -> None:
    """The aligned faces; images of one seed have the same pixels."""
    for number, name in enumerate(names):
        seed = (seeds or {}).get(name, 10_000 + number)
        save(root / "Image/aligned" / f"{Path(name).stem}_aligned.jpg", seed, (20, 20, 3))


def original(root: Path, name: str, seed: int) -> None:
    """A dark photograph with a white face in it, and the file that says where."""
    photo = photograph(seed)
    left, top, right, bottom = BOX
    photo[top:bottom, left:right] = 255
    path = root / "Image/original" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), photo)
    boxes = root / "Annotation/boundingbox"
    text(boxes / f"{path.stem}_boundingbox.txt", " ".join(f"{v:.4f}" for v in BOX))


def subset(
    root: Path, rows: Iterable[tuple[str, object]], seeds: dict[str, int] | None = None
) -> Path:
    """`list_patition_label.txt` and the aligned faces of a RAF-DB subset."""
    listed = list(rows)
    text(root / "EmoLabel/list_patition_label.txt", *(f"{name} {n}" for name, n in listed))
    aligned(root, dict.fromkeys(name for name, _ in listed), seeds)
    return root
