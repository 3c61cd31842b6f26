"""`fer-edge install`: make this program a service of this machine.

With `--root DIR` everything goes into a folder, an image of a box: nothing is started there.
"""

import argparse
import grp
import json
import os
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from contract.command import Parser
from contract.errors import UserError
from contract.files import write_atomic
from edge.detector_files import YUNET_FILE, fetch_yunet, find_yunet
from edge.install_services import PATTERNS, Services
from edge.install_version import (
    Source,
    extras_for,
    make_version,
    self_test,
    source_from,
)
from firmware_config.install_files import (
    Wanted,
    groups_of,
    put,
    wanted_files,
)
from firmware_config.install_layout import Layout
from firmware_config.profile import PROFILES, Profile, load_profile, profile_names
from firmware_config.purpose import PURPOSES, require_purpose


def add_root_flags(parser: argparse.ArgumentParser) -> None:
    """`--root` and `--dry-run`, which every command here has."""
    parser.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR",
        help="a folder that is to become a box's file system (default: this machine)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")


def add_wheels_flag(parser: argparse.ArgumentParser) -> None:
    """`--wheels`, for a machine without a package index."""
    parser.add_argument(
        "--wheels", type=Path, metavar="DIR",
        help="folder of wheels of everything that is needed; no index is asked then",
    )  # fmt: skip


def layout_of(root: Path, *, dry_run: bool) -> Layout:
    """The places under `root`. Raises `UserError` where this user may not write there."""
    # Resolved, as // and /mnt/.. are this machine too, which has services to stop and start.
    layout = Layout(root.resolve())
    if not dry_run and layout.is_this_machine and os.geteuid() != 0:
        raise UserError("installing on this machine needs root: use sudo, or --root DIR")
    return layout


def _install_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-edge install",
        description="Install this program under /opt/fer-edge as a service that starts at boot, "
        "with a profile, a unit for further cameras, and rules for devices.",
    )
    add = parser.add_argument
    add(
        "--profile", required=True, metavar="NAME",
        help=f"a .toml file, or one of: {' '.join(profile_names())}",
    )  # fmt: skip
    add(
        "--purpose", nargs="+", choices=PURPOSES, metavar="WHAT",
        help=f"what the box is for, if the profile does not say it: {' '.join(PURPOSES)}",
    )  # fmt: skip
    add(
        "--wheel", type=Path, metavar="FILE",
        help="the program's wheel (default: one built of the source tree that runs)",
    )  # fmt: skip
    add_wheels_flag(parser)
    add(
        "--files-only", action="store_true",
        help="write units, rules and profile anew, and leave versions and services as they are",
    )  # fmt: skip
    add_root_flags(parser)
    return parser


def profile_to_install(
    name: str, purpose: Sequence[str] | None, layout: Layout
) -> tuple[str, Profile]:
    """The text of the profile that goes onto the box, and what it says.

    Raises `UserError` for a profile that does not load, has no purpose or a refused one, or is not
    the one that is installed already: that one may have been edited there.
    """
    load_profile(name, {})  # says what is wrong, with its place
    file = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    text = file.read_text(encoding="utf-8")
    if purpose and "purpose" in tomllib.loads(text):
        raise UserError(f"--purpose: {file} says it already; change it there")
    if purpose:
        # Before everything else, where a key belongs to no table.
        text = f"purpose = {json.dumps(list(purpose))}\n{text}"
    profile = load_profile(name, {} if not purpose else {"purpose": list(purpose)})
    require_purpose(profile.purpose, str(file))
    there = layout.profile
    if there.is_file() and there.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{there} is there and says something else; keep it with --profile {there}, or "
            "move it away"
        )
    return text, profile


def _check_groups(files: Sequence[Wanted]) -> None:
    known = {group.gr_name for group in grp.getgrall()}
    for name in sorted(groups_of(files) - known):
        raise UserError(
            f"there is no group '{name}', which the service joins: groupadd --system {name}"
        )


def _detector(layout: Layout) -> str:
    """Put the face detector where the service finds it; one line on how that went."""
    here = layout.models / YUNET_FILE
    if here.is_file():
        return f"detector: {here} is there already"
    found = fetch_yunet()
    if found.path is None:
        return f"{found.reason}; the box runs on the Haar cascade until {here} is there"
    content = found.path.read_bytes()
    write_atomic(here, lambda stream: stream.write(content))
    return f"detector: {here}"


def _tell(layout: Layout, files: Sequence[Wanted], source: Source, extras: Sequence[str]) -> None:
    detector = find_yunet() or "fetched, if it can be"
    print(f"make   {layout.versions / source.version}: {source.wheel.name} [{','.join(extras)}]")
    print("test   it: detector, runtimes, model and golden check")
    print(f"copy   {layout.models / YUNET_FILE}: {detector}")
    for file in files:
        print(f"write  {file}")
    print(f"switch {layout.link} -> versions/{source.version}")
    if layout.is_this_machine:
        print(f"start  {PATTERNS[0]}, now and at every boot")


def main(arguments: Sequence[str]) -> int:
    """`fer-edge install`; raises `UserError`."""
    given = _install_parser().parse_args(arguments)
    layout = layout_of(given.root, dry_run=given.dry_run)
    text, profile = profile_to_install(given.profile, given.purpose, layout)
    files = wanted_files(layout, text, accelerator=profile.runtime.device != "CPU")
    os.umask(0o022)  # what is installed is for a user of its own to read
    if given.files_only:
        # A service that was disabled stays so: its link is among `files`, and is not there.
        kept = [one for one in files if one.path.parent.suffix != ".wants" or one.path.is_symlink()]
        put(layout, kept)
        return 0
    if layout.is_this_machine and not given.dry_run:
        Services().require()
        _check_groups(files)
    with source_from(given.wheel, given.wheels) as source:
        if given.dry_run:
            _tell(layout, files, source, extras_for(profile))
            return 0
        print(f"making {layout.versions / source.version}; this may take minutes", flush=True)
        with layout.changing():
            _install(layout, source, files, profile, text)
    return 0


def _install(
    layout: Layout, source: Source, files: Sequence[Wanted], profile: Profile, text: str
) -> None:
    before = layout.current()
    version = make_version(layout, source, extras_for(profile))
    print(_detector(layout))
    # Before any file of the box is touched: what runs on it goes on as it was if this fails.
    with tempfile.TemporaryDirectory(prefix="fer-edge-profile-") as folder:
        trial = Path(folder) / layout.profile.name
        trial.write_text(text, encoding="utf-8")
        faults = self_test(layout, version, trial)
    if faults:
        if version != before:
            layout.remove_version(version)
        raise UserError(f"{version} is not fit for this machine: {'; '.join(faults)}")
    put(layout, files)
    layout.switch(version)
    if version != before:  # else the one before stays: it is the way back
        layout.remove_all_but(version, before)
    print(f"installed: {version}; profile {layout.profile}")
    if layout.is_this_machine:
        services = Services()
        services.reload()
        fault = services.restart(PATTERNS[0], was_ready=False)
        if fault:
            raise UserError(fault)
        print(f"{PATTERNS[0]} runs; its log: journalctl -u fer-edge")
