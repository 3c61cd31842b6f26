"""One manifest from several, or several by recipe, with what repeats across them resolved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contract.errors import UserError
from trainer.data.clean import REPORT, cleaned
from trainer.data.recipes import HQ_FILE, RECIPES
from trainer.data.reports import write_data_set
from trainer.data.rows import Table


def _high_quality(table: Table, numbers: Sequence[int]) -> frozenset[int]:
    """Rows whose image is listed in a manifest called `hq.csv`."""
    best = {
        table.file(number)
        for number in range(len(table.rows))
        if table.manifest_of(number).file.name == HQ_FILE
    }
    return frozenset(number for number in numbers if best and table.file(number) in best)


def merge(
    table: Table, out: Path, near: bool, recipes: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Resolve a table by the rules of `clean` and write it; returns reports by manifest.

    Without `recipes` all that stays becomes one manifest in `out`; with them each gets a folder
    under `out`. Everything is resolved together first, so no two of the manifests leak into each
    other. Raises `UserError` where a recipe selects nothing.
    """
    result = cleaned(table, near)
    report = result.report()
    if not recipes:
        return {"merged": write_data_set(out, result.rows_for(out, result.kept), report, REPORT)}
    hq = _high_quality(table, result.kept)
    selected: dict[str, tuple[str, list[int]]] = {}
    for recipe in recipes:
        for name, numbers in RECIPES[recipe](table.rows, result.kept, hq).items():
            if not numbers:
                raise UserError(
                    f"--recipe {recipe}: selects no row of {table.manifests[0].file} and the "
                    "others named; see docs/data.md for what it takes"
                )
            selected[name] = (recipe, numbers)
    reports = {}
    for name, (recipe, numbers) in selected.items():
        folder = out / name
        rows = result.rows_for(folder, numbers)
        reports[name] = write_data_set(folder, rows, {"recipe": recipe, **report}, REPORT)
    return reports
