"""What a model said about every row: where evaluations, plots and comparisons start from."""

import io
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import write_atomic
from contract.metrics import Floats, Ints, softmax

SCHEMA_VERSION = 1
_MEND = "evaluate the model again"


@dataclass(frozen=True)
class Predictions:
    """Row by row: image, source, split, label (`N`) and uncalibrated logits (`N×7`).

    Divide the logits by `temperature` and take the softmax; the rows the temperature was fitted on
    may be among these rows, under their own split. `protocol` is how the labels were made.
    """

    paths: list[str]
    sources: list[str]
    splits: list[str]
    labels: Ints
    logits: NDArray[np.float32]
    temperature: float
    manifest_sha256: str
    protocol: str
    name: str

    def __len__(self) -> int:
        return len(self.labels)

    def probabilities(self) -> Floats:
        """`N×7` probabilities at the temperature."""
        return softmax(self.logits, self.temperature)

    def rows(self, chosen: NDArray[np.bool_] | Ints) -> "Predictions":
        """The rows of a mask or of row numbers, in that order."""
        numbers = np.arange(len(self))[chosen]
        return replace(
            self,
            paths=[self.paths[n] for n in numbers],
            sources=[self.sources[n] for n in numbers],
            splits=[self.splits[n] for n in numbers],
            labels=self.labels[numbers],
            logits=self.logits[numbers],
        )

    def select(self, split: str) -> "Predictions":
        """The rows of one split; there may be none."""
        return self.rows(np.array([each == split for each in self.splits], bool))


def save_predictions(file: Path, p: Predictions) -> None:
    """Write predictions as `.npz`, atomically; the same content gives the same bytes."""
    about = {
        "schema": SCHEMA_VERSION,
        "expressions": EXPRESSIONS,
        "temperature": p.temperature,
        "manifest_sha256": p.manifest_sha256,
        "protocol": p.protocol,
        "name": p.name,
    }
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        about=np.array(json.dumps(about)),
        paths=np.array(p.paths, np.str_),
        sources=np.array(p.sources, np.str_),
        splits=np.array(p.splits, np.str_),
        labels=np.asarray(p.labels, np.int64),
        logits=np.asarray(p.logits, np.float32),
    )
    write_atomic(file, lambda out: out.write(stream.getvalue()))


def _faults(p: Predictions) -> str | None:
    """What is wrong with the content of a file, if anything."""
    count = len(p.labels)
    if any(len(each) != count for each in (p.paths, p.sources, p.splits, p.logits)):
        return "its columns have different lengths"
    if p.labels.shape != (count,) or p.logits.shape != (count, len(EXPRESSIONS)):
        return f"it needs N labels and N×{len(EXPRESSIONS)} logits"
    if not ((p.labels >= 0) & (p.labels < len(EXPRESSIONS))).all():
        return f"a label is not in 0…{len(EXPRESSIONS) - 1}"
    if not np.isfinite(p.logits).all():
        return "a logit is not a finite number"
    if not 0 < p.temperature < float("inf"):
        return f"its temperature is {p.temperature}"
    return None


def load_predictions(file: Path) -> Predictions:
    """The inverse of `save_predictions`.

    Raises `UserError` for a file that is missing, damaged, of another schema or class order, or
    whose numbers cannot be right.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if about["schema"] != SCHEMA_VERSION:
                raise UserError(
                    f"{file}: schema {about['schema']}, this program reads {SCHEMA_VERSION}; "
                    f"{_MEND}"
                )
            if tuple(about["expressions"]) != EXPRESSIONS:
                raise UserError(
                    f"{file}: logits are in the order '{' '.join(about['expressions'])}', this "
                    f"program needs '{' '.join(EXPRESSIONS)}'; {_MEND}"
                )
            p = Predictions(
                paths=stored["paths"].tolist(),
                sources=stored["sources"].tolist(),
                splits=stored["splits"].tolist(),
                labels=stored["labels"].astype(np.int64),
                logits=stored["logits"].astype(np.float32),
                temperature=float(about["temperature"]),
                manifest_sha256=str(about["manifest_sha256"]),
                protocol=str(about["protocol"]),
                name=str(about["name"]),
            )
    except FileNotFoundError:
        raise UserError(f"no predictions at {file}; a finished run has them, or evaluate") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: not readable as predictions ({error}); {_MEND}") from None
    if fault := _faults(p):
        raise UserError(f"{file}: {fault}; {_MEND}")
    return p


def check_same_rows(
    one: Predictions, other: Predictions, *, name: str, other_name: str, mend: str
) -> None:
    """Raises `UserError`, ending in `mend`, unless both have the same rows and labels."""
    if one.paths == other.paths and np.array_equal(one.labels, other.labels):
        return
    raise UserError(
        f"{other_name} was evaluated on other rows than {name}: {len(other)} of manifest "
        f"{other.manifest_sha256[:12]} ({other.protocol}) against {len(one)} of "
        f"{one.manifest_sha256[:12]} ({one.protocol}); {mend}"
    )
