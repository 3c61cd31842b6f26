"""The files an installed box has outside its versions: units, rules, profile, command.

Units and rules are copied from this package as they are. What was made is written down, folders
too, so that nothing of it is left when the box is taken out of service.
"""

import grp
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.errors import UserError
from contract.files import write_atomic, write_json_atomic
from firmware_config.install_layout import Layout, point

SOURCES = Path(__file__).parent
UNITS = ("fer-edge.service", "fer-edge@.service")
RULES = "70-fer-edge.rules"
ACCELERATOR = "accelerator.conf"
READERS = "video"
"""Group that may read the profiles: who may open a camera may know the password of another."""


@dataclass(frozen=True)
class Wanted:
    """A file to be there: its content, or what it links to, and who may read it."""

    path: Path
    content: bytes = b""
    link: Path | None = None
    secret: bool = False

    def __str__(self) -> str:
        to = f" -> {self.link}" if self.link else f" ({len(self.content)} bytes)"
        return f"{self.path}{to}"


def wanted_files(layout: Layout, profile: str, *, accelerator: bool) -> list[Wanted]:
    """Every file of an installation.

    `profile` is the profile's text; `accelerator` lets the service open a GPU or an NPU.
    """
    units = layout.units
    files = [Wanted(units / unit, (SOURCES / "systemd" / unit).read_bytes()) for unit in UNITS]
    if accelerator:
        content = (SOURCES / "systemd" / ACCELERATOR).read_bytes()
        files += [Wanted(units / f"{unit}.d" / ACCELERATOR, content) for unit in UNITS]
    rules = (SOURCES / "udev" / RULES).read_bytes()
    return [
        *files,
        Wanted(units / "multi-user.target.wants" / UNITS[0], link=Path("..") / UNITS[0]),
        Wanted(layout.root / "etc/udev/rules.d" / RULES, rules),
        Wanted(
            layout.root / "usr/local/bin/fer-edge",
            link=layout.on_the_box(layout.link / "bin/fer-edge"),
        ),
        Wanted(layout.profile, profile.encode(), secret=True),
    ]


def groups_of(files: Iterable[Wanted]) -> set[str]:
    """The groups that units among `files` join; no unit that joins an unknown one starts."""
    found: set[str] = set()
    for file in files:
        for names in re.findall(rb"^SupplementaryGroups=(.*)$", file.content, re.MULTILINE):
            found |= set(names.decode().split())
    return found


def _made_before(layout: Layout) -> dict[str, list[str]]:
    record = layout.home / "installed.json"
    if not record.is_file():
        return {"files": [], "folders": []}
    made: dict[str, list[str]] = json.loads(record.read_text(encoding="utf-8"))
    return made


def put(layout: Layout, files: Iterable[Wanted]) -> None:
    """Write the files, each atomically, and remember what was made.

    What an earlier installation wrote and this one does not want is removed. Raises `UserError`
    for a link's place that is taken by somebody else's file or link, and for a place outside the
    root, to which a link leads; nothing is written then.
    """
    files = list(files)
    made = _made_before(layout)
    folders = set(made["folders"])
    for file in files:
        layout.require_inside(file.path)
        if _is_taken(layout, file, made["files"]):
            raise UserError(f"{file.path} is there and is not ours; move it away")
        missing = [p for p in file.path.parents if p.is_relative_to(layout.root) and not p.exists()]
        folders |= {str(layout.on_the_box(folder)) for folder in missing}
    wanted = {str(layout.on_the_box(file.path)) for file in files}
    record = {"files": sorted({*wanted, *made["files"]}), "folders": sorted(folders)}
    write_json_atomic(layout.home / "installed.json", record)  # first: a kill leaves no orphan
    for file in files:
        _put(file)
    for name in set(made["files"]) - wanted:
        (layout.root / name.lstrip("/")).unlink(missing_ok=True)
    write_json_atomic(layout.home / "installed.json", {**record, "files": sorted(wanted)})


def _is_taken(layout: Layout, file: Wanted, made: Collection[str]) -> bool:
    """Is the place of a link somebody else's?"""
    if file.link is None or not os.path.lexists(file.path):
        return False
    if not file.path.is_symlink():
        return True
    # `systemctl enable` writes the same link in another way.
    folder = layout.on_the_box(file.path.parent)
    leads, wanted = (os.path.normpath(folder / to) for to in (file.path.readlink(), file.link))
    return str(layout.on_the_box(file.path)) not in made and leads != wanted


def _put(file: Wanted) -> None:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    if file.link is not None:
        point(file.path, file.link)
        return
    kept = (
        file.secret and os.geteuid() == 0 and READERS in {each.gr_name for each in grp.getgrall()}
    )
    write_atomic(
        file.path, lambda stream: stream.write(file.content), mode=0o600 if kept else 0o644
    )
    if kept:
        shutil.chown(file.path, group=READERS)
        file.path.chmod(0o640)


def leftovers(layout: Layout) -> list[Path]:
    """Everything of an installation that is there now, in the order in which to remove it.

    Also profiles, session logs, caches and the state of every camera. Raises `UserError` for a
    place outside the root, to which a link leads.
    """
    found = [layout.root / name.lstrip("/") for name in _made_before(layout)["files"]]
    # What was enabled has a link, and a `systemctl edit` a folder, of its own.
    for name in UNITS:
        unit = name.replace("@.", "@*.")  # the template's own too: a star may be nothing
        found += [*layout.units.glob(f"*.wants/{unit}"), *layout.units.glob(f"{unit}.d")]
    found.append(layout.profile.parent)
    for name in ("lib", "cache", "log"):
        found += _written(layout, layout.root / "var" / name)
    there = [path for path in found if os.path.lexists(path)]
    for path in there:
        layout.require_inside(path)
    return [*dict.fromkeys(there), layout.home]


def _written(layout: Layout, folder: Path) -> Iterator[Path]:
    """What the services wrote under `folder`: of DynamicUser= in `private`, with a link to it.

    A folder that is only named alike, such as somebody's copy of the logs, is none of them.
    """
    cameras = {f"fer-edge-{profile.stem}" for profile in layout.profile.parent.glob("*.toml")}
    private = folder / "private"
    for path in (folder / "fer-edge", *folder.glob("fer-edge-*")):
        if path.is_symlink() or path.name in {"fer-edge", *cameras}:
            yield path
    yield from (private / "fer-edge", *private.glob("fer-edge-*"))


def take_away(layout: Layout, paths: Iterable[Path]) -> None:
    """Remove `paths`, and the folders that an installation made where they are empty then."""
    folders = [layout.root / name.lstrip("/") for name in _made_before(layout)["folders"]]
    if not layout.is_this_machine:
        folders.append(layout.home.parent)  # made before anything could be written down
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
