"""One line out of a pydantic error: which file, which key, what is wrong, what is near."""

from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError

from contract.errors import UserError, nearest


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The field names at the level of `model` where `location` ends."""
    current: type[BaseModel] | None = model
    for part in location[:-1]:
        if isinstance(part, int):  # an item of the list before it, whose model is known already
            continue
        if current is None or part not in current.model_fields:
            return []
        annotation = current.model_fields[part].annotation
        annotation = next(iter(get_args(annotation)), annotation)
        nested = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        current = annotation if nested else None  # type: ignore[assignment]
    return list(current.model_fields) if current is not None else []


def explain(error: ValidationError, model: type[BaseModel], place: Path | str) -> UserError:
    """The first problem of a `ValidationError` as a `UserError` naming `place` and the key."""
    problems = error.errors()
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"]) or "the whole file"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, first["loc"])
        hint = nearest(str(first["loc"][-1]), known)
        return UserError(f"{place}: unknown key '{key}'{hint}{more}")
    if first["type"] == "value_error":  # of a check of ours, which says it all
        return UserError(f"{place}: {key}: {first['ctx']['error']}{more}")
    given = "" if first["type"] == "missing" else f", got {first['input']!r}"[:120]
    return UserError(f"{place}: {key}: {first['msg'].lower()}{given}{more}")
