"""`fer-trainer data`: data sets to manifests, and manifests checked, cleaned, cut and merged."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.command import Parser
from contract.errors import UserError
from contract.files import write_json_atomic
from contract.manifest import read_manifest
from trainer.data.clean import REPORT, clean
from trainer.data.importers import IMPORTERS
from trainer.data.merge import merge
from trainer.data.recipes import RECIPES
from trainer.data.recut import recut
from trainer.data.rows import Table
from trainer.data.stats import as_table, stats
from trainer.data.validate import validate

SAMPLE = 50_000
"""Images opened by default: all of most data sets, a sample of the few that are larger."""


def _decode(text: str) -> int | None:
    if text == "all":
        return None
    try:
        count = 0 if text == "none" else int(text)
    except ValueError:
        count = -1
    if count < 0:
        raise UserError(f"--decode {text}: use a number of images, all or none")
    return count


def _read(files: Sequence[Path]) -> Table:
    # Missing images are found, and spoken of, by what opens them.
    return Table([read_manifest(file, check_files=False) for file in files])


def _print_rows(name: str, report: Mapping[str, Any]) -> None:
    rows = "  ".join(f"{split} {count}" for split, count in report["rows"].items())
    print(f"{name}: {rows}")


def _import(given: argparse.Namespace) -> int:
    if not given.source.is_dir():
        raise UserError(f"{given.source} is not a folder; name the one that holds the data set")
    out = given.out or Path("data") / given.data_set
    reports = IMPORTERS[given.data_set](source=given.source, out=out, seed=given.seed)
    for name, report in reports.items():
        _print_rows(name, report)
        for reason, count in report["dropped"].items():
            print(f"  dropped {count}: {reason}")
    print(f"manifests under {out}")
    return 0


def _validate(given: argparse.Namespace) -> int:
    report = validate(given.manifests, decode=given.decode, near=given.near, seed=given.seed)
    if given.json:
        write_json_atomic(given.json, report)
    for manifest in report["manifests"]:
        print(f"{manifest['path']}: {manifest['rows']} rows, sha256 {manifest['sha256']}")
    checked = report["checked"]
    print(
        f"compared by pixels: {checked['compared_by_pixels']}, by sha256: "
        f"{checked['compared_by_sha256']}, not compared: {checked['not_compared']}"
    )
    for kind, count in report["warnings"]["counts"].items():
        print(f"warning: {count} × {kind}; fer-trainer data clean resolves it")
    if report["valid"]:
        print("valid")
        return 0
    faults = report["faults"]
    for kind, count in faults["counts"].items():
        print(f"fault: {count} × {kind}")
    more = sum(faults["counts"].values()) - 1
    also = f" (and {more} more faults{'' if given.json else '; --json lists them'})" if more else ""
    raise UserError(faults["listed"][0]["message"] + also)


def _print_written(reports: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    actions = next(iter(reports.values()))["actions"]
    for reason, count in actions.items():
        print(f"{count} × {reason}")
    for name, report in reports.items():
        _print_rows(name, report)
        print(f"  sha256 {report['sha256']['manifest.csv']}")
    print(f"manifests and {REPORT} under {out}")


def _clean(given: argparse.Namespace) -> int:
    report = clean(_read([given.manifest]), given.out, given.near)
    _print_written({"cleaned": report}, given.out)
    return 0


def _split(given: argparse.Namespace) -> int:
    shares = {"test": given.test, "val": given.val, "calib": given.calib}
    report = recut(_read([given.manifest]), given.out, shares, given.seed, given.near)
    _print_written({"cut": report}, given.out)
    return 0


def _merge(given: argparse.Namespace) -> int:
    recipes = list(RECIPES) if given.recipe == "all" else [given.recipe] if given.recipe else []
    _print_written(merge(_read(given.manifests), given.out, given.near, recipes), given.out)
    return 0


def _stats(given: argparse.Namespace) -> int:
    figures = stats(_read(given.manifests), decode=given.decode, seed=given.seed)
    if given.json:
        write_json_atomic(given.json, figures)
    print("\n".join(as_table(figures)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-trainer data", description="Manifests: made, checked, mended.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, manifests: str | None) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        if manifests:
            added.add_argument(
                manifests, type=Path, nargs="+" if manifests == "manifests" else None,
                metavar="MANIFEST",
            )  # fmt: skip
        added.add_argument("--seed", type=int, default=1337, help="seed of everything drawn")
        return added

    def writes(added: argparse.ArgumentParser) -> None:
        added.add_argument("--out", type=Path, required=True, help="folder to write to")

    def looks(added: argparse.ArgumentParser) -> None:
        added.add_argument(
            "--decode", type=_decode, default=SAMPLE, metavar="N|all|none",
            help=f"images to open, a seeded sample (default: {SAMPLE})",
        )  # fmt: skip
        added.add_argument("--json", type=Path, metavar="FILE", help="write the report here")

    def nears(added: argparse.ArgumentParser) -> None:
        added.add_argument(
            "--near", action="store_true", help="also near duplicates (quadratic in the images)"
        )

    add = command("import", _import, "a data set in its own layout → manifests", None)
    add.add_argument("data_set", choices=sorted(IMPORTERS))
    add.add_argument("source", type=Path, help="the folder the data set came in")
    add.add_argument("--out", type=Path, help="where to write (default: data/NAME)")
    add = command("validate", _validate, "check manifests; exit code 2 on a fault", "manifests")
    looks(add)
    nears(add)
    add = command("clean", _clean, "resolve what validate finds, by rules", "manifest")
    writes(add)
    nears(add)
    add = command("split", _split, "cut splits anew, groups whole, stratified", "manifest")
    writes(add)
    nears(add)
    for split, share in (("val", 0.1), ("test", 0.0), ("calib", 0.1)):
        add.add_argument(
            f"--{split}", type=float, default=share, metavar="SHARE",
            help=f"share of all rows (default: {share:g})",
        )  # fmt: skip
    add = command("merge", _merge, "one manifest from several, or several by recipe", "manifests")
    writes(add)
    nears(add)
    add.add_argument(
        "--recipe", choices=[*RECIPES, "all"], help="what to select (default: all rows)"
    )
    looks(command("stats", _stats, "rows, votes, copies and sizes in figures", "manifests"))
    return parser


def main(arguments: list[str]) -> int:
    """The command. Returns the exit code; raises `UserError`."""
    given = _parser().parse_args(arguments)
    code: int = given.run(given)
    return code
