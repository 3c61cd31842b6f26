"""What a command that makes manifests leaves behind: the manifest, its splits, and a report."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.files import sha256_file, write_json_atomic
from contract.manifest import SPLITS, Manifest, Row, write_manifest
from trainer.data.splits import counts


def by_split(rows: Iterable[Row]) -> dict[str, int]:
    """Rows per split that has any, in the order of the splits."""
    tally = Counter(row.split for row in rows)
    return {split: tally[split] for split in SPLITS if tally[split]}


def described(manifests: Iterable[Manifest]) -> list[dict[str, Any]]:
    """Where manifests lie, the hash of their bytes, and their rows per split."""
    return [{"path": str(m.file), "sha256": m.sha256, "rows": by_split(m.rows)} for m in manifests]


def write_data_set(
    folder: Path, rows: Sequence[Row], report: dict[str, Any], name: str
) -> dict[str, Any]:
    """Write `manifest.csv`, a CSV per split, and the report as `name`, each in one rename.

    Returns the report with `rows` per split, `kept` by split and label, and the `sha256` of every
    CSV. A CSV of a split that has no rows any more is removed, as it would speak of another cut.
    Raises `UserError` for a folder that cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot write to {folder}: {reason}; name another with --out") from None
    files = [folder / "manifest.csv"]
    write_manifest(files[0], rows)
    kept = {}
    for split in SPLITS:
        part, file = [row for row in rows if row.split == split], folder / f"{split}.csv"
        if part:
            write_manifest(file, part)
            files.append(file)
            kept[split] = counts(row.label for row in part)
        else:
            file.unlink(missing_ok=True)
    done = {
        **report,
        "kept": kept,
        "rows": by_split(rows),
        "sha256": {file.name: sha256_file(file) for file in files},
    }
    write_json_atomic(folder / name, done)
    return done
