"""Phases as TOML files that extend each other, read into checked models."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contract.errors import UserError, nearest
from contract.validation import explain
from trainer.config import TrainConfig

PHASES = Path(__file__).parent / "phases"


def phase_names() -> list[str]:
    """Names of the phases that ship with the trainer; those with a leading `_` are bases."""
    return sorted(p.stem for p in PHASES.glob("*.toml") if not p.stem.startswith("_"))


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _read(file: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if file in seen:
        raise UserError(f"{file} extends itself; remove the circle of 'extends'")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{seen[-1] if seen else 'phase'}: no phase file at {file}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid TOML: {error}") from None
    parent = content.pop("extends", None)
    if parent is None:
        return content
    near = file.parent / f"{parent}.toml"
    base = near if near.is_file() else PHASES / f"{parent}.toml"
    return _merge(_read(base, (*seen, file)), content)


def override(content: dict[str, Any], assignment: str) -> None:
    """Apply `key.sub=value` (a TOML value, or a bare word) to `content`, in place."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise UserError(f"--set {assignment}: write it as key=value, such as optim.epochs=3")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.split(".")
    for part in path:
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise UserError(f"--set {assignment}: '{part}' is not a section")
    content[last] = value


def load_phase(phase: str, overrides: list[str]) -> TrainConfig:
    """A phase by name or by its TOML file, with `key=value` overrides, checked.

    Raises `UserError` for an unknown phase or key (suggesting the nearest) or a wrong value.
    """
    file = Path(phase) if phase.endswith(".toml") else PHASES / f"{phase}.toml"
    if not file.is_file():
        known = phase_names()
        raise UserError(
            f"--phase {phase}: no such phase{nearest(phase, known)} (one of {' '.join(known)})"
        )
    content = _merge({"phase": file.stem}, _read(file))
    for assignment in overrides:
        override(content, assignment)
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise explain(error, TrainConfig, f"phase {file.stem}") from None
