"""The choice made at an earlier start, kept in a small JSON file.

A hint, never the truth: whatever is wrong with the file, the answer is "nothing remembered", and
what it names is golden-checked before use.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from contract.bundle import Bundle
from contract.files import write_json_atomic
from runtime.machine import cpu_model, library_versions
from runtime.session import BACKENDS, Backend

FILE = "choice.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remembered:
    """Which artifact on which runtime, and the batch-1 latency measured then."""

    file: str
    backend: Backend
    latency_ms: float
    device: str


def key(bundle: Bundle, threads: int, backend: str, places: str) -> str:
    """Everything a choice depends on; another bundle, CPU, library or setting is another key."""
    libraries = " ".join(f"{name} {number}" for name, number in library_versions().items())
    return (
        f"{bundle.sha256} | {cpu_model()} | {libraries} | threads {threads} | {backend} | {places}"
    )


def _read(folder: Path) -> dict[str, object]:
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def recall(folder: Path, choice_key: str) -> Remembered | None:
    """What was kept under this key, or None."""
    entry = _read(folder).get(choice_key)
    if not isinstance(entry, dict):
        return None
    file, backend = entry.get("file"), entry.get("backend")
    latency, device = entry.get("latency_ms"), entry.get("device")
    if not isinstance(file, str) or not isinstance(device, str):
        return None
    if backend in BACKENDS and isinstance(latency, float):
        return Remembered(file, backend, latency, device)
    return None


def keep(folder: Path, choice_key: str, choice: Remembered) -> None:
    """Remember a choice; a folder that cannot be written only costs the next start its time."""
    try:
        write_json_atomic(folder / FILE, {**_read(folder), choice_key: asdict(choice)})
    except OSError as error:
        log.warning("the choice of model is not remembered: %s", error)
