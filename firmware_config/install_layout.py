"""Where an installed box has its parts, and which of its versions is current.

    /opt/fer-edge/versions/NAME/   an environment of its own for every version, whole or absent
    /opt/fer-edge/current          a link to the version that runs; changes by one rename
    /opt/fer-edge/{bundles,models} what several cameras share: installed bundles, the detector
    /etc/fer-edge/NAME.toml        profiles; `box.toml` is the one of fer-edge.service
    /var/{lib,cache,log}/fer-edge  made by systemd; fer-edge-NAME for fer-edge@NAME.service

All of it lies under a root, so that an image of a box can be made on another machine.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.errors import UserError
from contract.lock import locked

COMPLETE = ".complete"
"""File that is made last in a version's folder: one without it was interrupted."""


def point(link: Path, target: Path) -> None:
    """Make `link` lead to `target`, by one rename: it is never missing in between."""
    fresh = link.with_name(f".{link.name}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


@dataclass(frozen=True)
class Layout:
    """The places of an installation under `root`, an absolute path without links."""

    root: Path

    @property
    def is_this_machine(self) -> bool:
        """Is it the running system, which has services to start, and not a folder?"""
        return self.root == Path("/")

    @property
    def home(self) -> Path:
        """The folder of the program."""
        return self.root / "opt/fer-edge"

    @property
    def versions(self) -> Path:
        """The folder of versions."""
        return self.home / "versions"

    @property
    def link(self) -> Path:
        """What leads to the current version."""
        return self.home / "current"

    @property
    def models(self) -> Path:
        """The folder of the detector's file."""
        return self.home / "models"

    @property
    def profile(self) -> Path:
        """The profile of fer-edge.service."""
        return self.root / "etc/fer-edge/box.toml"

    @property
    def units(self) -> Path:
        """The folder of the administrator's units."""
        return self.root / "etc/systemd/system"

    def on_the_box(self, path: Path) -> Path:
        """A path as the box itself will see it, without the root."""
        return Path("/") / path.relative_to(self.root)

    def require_inside(self, path: Path) -> None:
        """Raises `UserError` for a place outside the root, to which a link on the way leads.

        An image's own links, such as one of `/var/log`, are meant for the box: followed here they
        lead into the machine that makes the image.
        """
        if not path.parent.resolve().is_relative_to(self.root):
            raise UserError(
                f"{path}: a link on the way leads out of {self.root}, to {path.parent.resolve()}; "
                "make it a relative one, or a folder"
            )

    def current(self) -> str | None:
        """The name of the current version; None where nothing is installed."""
        return self.link.readlink().name if self.link.is_symlink() else None

    def is_whole(self, version: str) -> bool:
        """Was this version made to its end?"""
        return (self.versions / version / COMPLETE).is_file()

    def switch(self, version: str) -> None:
        """Make a version current, by one rename: a reader sees the old one or the new one."""
        point(self.link, Path("versions") / version)  # relative, so that it holds under any root
        folder = os.open(self.home, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove_version(self, version: str) -> None:
        """Remove a version; its mark first, as half a version must not pass for a whole one."""
        folder = self.versions / version
        (folder / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(folder)

    def remove_all_but(self, *kept: str | None) -> list[str]:
        """Remove the versions that are not `kept`; returns what went."""
        there = [each.name for each in self.versions.iterdir() if each.is_dir()]
        old = sorted(name for name in there if name not in kept)
        for version in old:
            self.remove_version(version)
        return old

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock. Raises `UserError` while another command holds it."""
        self.require_inside(self.versions)
        with locked(self.home, "install, upgrade or uninstall"):
            yield
