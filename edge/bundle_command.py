"""`fer-edge bundle`: install bundles on this box, step back, list and verify them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contract.bundle import Bundle, open_bundle
from contract.command import Parser
from contract.errors import UserError
from contract.store import BundleStore, Installed
from edge.bundles import store_folder
from firmware_config.profile import DEFAULT, load_profile

MEASURED = ("int8_report", "val", "calib")
"""Where a bundle's metrics may hold its accuracy; the first is the nearest to what runs here."""
FIGURES = ("accuracy", "split", "protocol", "precision", "n")
RESTART = "a fer-edge that runs takes it up at its next start"


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1: the new bundle is always kept")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-edge bundle",
        description="Installed bundles lie side by side; one is current and runs where no other is "
        "named with --model. Without one, the built-in bundle runs.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument(
            "--store", type=Path, metavar="DIR",
            help="where bundles are installed (default: $FER_STORE, $STATE_DIRECTORY/bundles, "
            "or the user's data folder)",
        )  # fmt: skip
        return added

    install = command("install", "check a bundle on this machine, copy it in, make it current")
    install.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    install.add_argument(
        "--keep", type=_count, metavar="N",
        help="afterwards remove all but the current bundle and the N-1 before it (default: all "
        "are kept)",
    )  # fmt: skip
    command("rollback", "undo the last switch: the bundle before becomes current")
    listing = command("list", "every installed bundle, the newest first")
    listing.add_argument("--json", action="store_true", help="as JSON, on stdout")
    verify = command("verify", "check every file of every installed bundle, or of one folder")
    verify.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="bundle folder")
    return parser


def _named(bundle: Bundle) -> str:
    return f"{bundle.info.name} ({bundle.sha256[:12]})"


def _check_here(folder: Path) -> None:
    """Open and golden-check a bundle as a start would; prints what would run.

    Raises `UserError` for a bundle of which nothing works on this machine.
    """
    from runtime.choose import choose  # the other commands need no inference runtime

    bundle = open_bundle(folder)
    runtime = load_profile(DEFAULT, {}).runtime
    chosen = choose(bundle, threads=runtime.threads)
    chosen.session.close()
    print(
        f"{_named(bundle)} works on this machine: {chosen.artifact.precision} on "
        f"{chosen.session.backend}, {chosen.latency_ms:.2f} ms a face"
    )


def _install(store: BundleStore, folder: Path, keep: int | None) -> int:
    _check_here(folder)
    bundle = store.install(folder, keep)
    print(f"current: {_named(bundle)} in {bundle.folder}; {RESTART}")
    return 0


def _rollback(store: BundleStore) -> int:
    bundle = store.rollback()
    now = "none, the built-in bundle runs" if bundle is None else _named(bundle)
    print(f"current: {now}; {RESTART}")
    return 0


def _accuracy(metrics: dict[str, Any]) -> dict[str, Any]:
    """The accuracy a bundle states, with the rows it was measured on; empty where it has none."""
    for key in MEASURED:
        figures = metrics.get(key)
        if isinstance(figures, dict) and isinstance(figures.get("accuracy"), int | float):
            return {"split": key, **{k: v for k, v in figures.items() if k in FIGURES}}
    return {}


def _row(each: Installed) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in each.folder.iterdir() if path.is_file())
    row: dict[str, Any] = {
        "sha256": each.sha256,
        "name": each.bundle.info.name if each.bundle else None,
        "installed": each.installed.isoformat(timespec="seconds"),
        "current": each.current,
        "previous": each.previous,
        "size_mb": round(size / 1e6, 1),
        "figures": _accuracy(each.bundle.info.metrics) if each.bundle else {},
        "folder": str(each.folder),
        "fault": each.fault,
    }
    return row


def _line(row: dict[str, Any]) -> str:
    state = "current" if row["current"] else "previous" if row["previous"] else ""
    figures, told = row["figures"], ""
    if figures:
        rows = " ".join(str(figures[k]) for k in ("split", "protocol") if k in figures)
        told = f"  accuracy {figures['accuracy']:.4f} ({rows}, n = {figures.get('n', '?')})"
    about = f"DAMAGED: {row['fault']}" if row["fault"] else f"{row['name']}{told}"
    return f"{state:8}  {row['sha256'][:12]}  {row['installed']}  {row['size_mb']:6.1f} MB  {about}"


def _list(store: BundleStore, as_json: bool) -> int:
    rows = [_row(each) for each in store.installed()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(_line(row))
    if not any(row["current"] for row in rows):
        print(f"no bundle in {store.root} is current: the built-in one runs")
    return 0


def _verify(store: BundleStore, folder: Path | None) -> int:
    if folder is not None:
        print(f"whole: {_named(open_bundle(folder))} in {folder}")
        return 0
    installed = store.installed()
    for each in installed:
        print(f"whole: {_named(each.bundle)}" if each.bundle else f"DAMAGED: {each.fault}")
    faults = [each.fault for each in installed if each.fault]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}")
    store.current()  # a link that leads nowhere is a fault as well
    print(f"{len(installed)} installed in {store.root}, all whole")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    store = BundleStore(given.store or store_folder())
    if given.command == "install":
        return _install(store, given.bundle, given.keep)
    if given.command == "rollback":
        return _rollback(store)
    if given.command == "list":
        return _list(store, given.json)
    return _verify(store, given.bundle)
