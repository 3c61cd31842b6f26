"""Data sets in their own layouts → manifests with the seven expressions.

Every importer reads a folder as its authors ship it, writes images and manifests under another
folder, and returns reports of what it kept and what it dropped, and why.
"""

from collections.abc import Callable
from typing import Any

from trainer.data.importers.affectnet import import_affectnet
from trainer.data.importers.expw import import_expw
from trainer.data.importers.fer2013 import import_fer2013
from trainer.data.importers.ferplus import import_ferplus
from trainer.data.importers.muxspace import import_muxspace
from trainer.data.importers.rafdb import import_rafdb
from trainer.data.importers.rafdb_compound import import_rafdb_compound
from trainer.data.importers.rafml import import_rafml

IMPORTERS: dict[str, Callable[..., dict[str, Any]]] = {
    "affectnet": import_affectnet,
    "expw": import_expw,
    "fer2013": import_fer2013,
    "ferplus": import_ferplus,
    "muxspace": import_muxspace,
    "rafdb": import_rafdb,
    "rafdb_compound": import_rafdb_compound,
    "rafml": import_rafml,
}
"""By data set: `importer(source=…, out=…, seed=…)` returns reports by manifest."""
