"""RAF-DB, the basic subset: one of seven expressions each (Li et al., CVPR 2017)."""

from pathlib import Path
from typing import Any

from trainer.data.importers._raf import import_partitioned, root_of

CLASSES = {
    "1": "surprise",
    "2": "fear",
    "3": "disgust",
    "4": "happy",
    "5": "sad",
    "6": "angry",
    "7": "neutral",
}


def import_rafdb(*, source: Path, out: Path, seed: int) -> dict[str, Any]:
    """RAF-DB basic → `out` manifest; returns the report.

    `source` (or its folder `basic`) holds `EmoLabel/list_patition_label.txt` and `Image/aligned`,
    or `Image/original` with `Annotation/boundingbox`. The test images are `test`; `val` and `calib`
    are cut from the training images. Raises `UserError` naming the file and line of a fault.
    """
    return import_partitioned(
        data_set="rafdb", root=root_of(source, ("basic",)), classes=CLASSES,
        protocol="single label", out=out, seed=seed,
    )  # fmt: skip
