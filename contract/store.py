"""Installed bundles: side by side under their hash, one of them current, the last step undoable.

    bundles/<sha256>/     whole, verified copies; the name is the bundle's identity
    generations/<n>       a link to a bundle for every switch, numbered from 1
    current               a link to a generation; where there is none, nothing is installed
    partial/              what an install is working on; whatever an interrupted one left there
    lock                  held while something changes

`current` is the only thing a reader follows and it changes by one rename, after everything it leads
to is on the disc: a kill or a power cut at any moment leaves the old bundle or the new one. To roll
back is to follow the generation before. Those above the current one were undone and are dropped at
the next install, so a step back never leads to a bundle somebody stepped back from.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contract.bundle import Bundle, open_bundle
from contract.errors import UserError
from contract.lock import locked

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Installed:
    """One installed bundle. `bundle` is None where it is damaged, and `fault` says how.

    `previous` marks the one a rollback leads to.
    """

    sha256: str
    folder: Path
    installed: datetime
    current: bool
    previous: bool
    bundle: Bundle | None
    fault: str


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disc before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class BundleStore:
    """The installed bundles under `root`; nothing is made there before the first install."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bundles, self._generations = root / "bundles", root / "generations"
        self._current, self._partial = root / "current", root / "partial"

    # What is there.

    def current(self) -> Bundle | None:
        """The bundle to run, verified, or None where nothing is installed.

        Its folder is the bundle's own, not the link: a switch does not change it under a reader.
        Raises `UserError` if it is damaged or gone.
        """
        sha256 = self._current_hash()
        return None if sha256 is None else self._open(sha256)

    def installed(self) -> list[Installed]:
        """Every installed bundle, the newest first; a damaged one with its fault."""
        current = self._current_hash()
        previous = self._before()
        found = []
        for folder in self._folders():
            bundle, fault = None, ""
            try:
                bundle = self._open(folder.name)
            except UserError as error:
                fault = str(error)
            when = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            found.append(
                Installed(
                    folder.name, folder, when, folder.name == current,
                    previous is not None and folder.name == self._target(previous), bundle, fault,
                )
            )  # fmt: skip
        return sorted(found, key=lambda each: each.installed, reverse=True)

    # What changes it.

    def install(self, source: Path, keep: int | None = None) -> Bundle:
        """Copy a bundle in, verified before and after, and make it current; returns the copy.

        One that is there already is only made current; a damaged copy is replaced. With `keep`,
        all but the current bundle and the `keep` − 1 before it are removed afterwards. Raises
        `UserError`, and leaves `current` as it was, for a bundle that does not open, another
        install at work, or a folder that cannot be written.
        """
        bundle = open_bundle(source)
        with self._changing():
            if not self._is_whole(bundle.sha256):
                bundle = self._copy(source)
            self._make_current(bundle.sha256)
            if keep is not None:
                self._remove_all_but(keep)
        return self._open(bundle.sha256)

    def rollback(self) -> Bundle | None:
        """Undo the last switch; returns what is current now, None where nothing was before.

        Raises `UserError` if nothing is current, or what was before is damaged or gone.
        """
        with self._changing():
            if self._current_hash() is None:
                raise UserError(f"{self.root}: no installed bundle is current; nothing to undo")
            before = self._before()
            if before is None:
                self._current.unlink()
                _sync(self.root)
                return None
            bundle = self._open(self._target(before))
            self._point_at(before)
            return bundle

    # How.

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self._bundles.iterdir() if _HASH.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self._bundles} cannot be read: {error.strerror}") from None

    def _open(self, sha256: str) -> Bundle:
        bundle = open_bundle(self._bundles / sha256)
        if bundle.sha256 != sha256:
            raise UserError(
                f"{bundle.folder} holds another bundle, {bundle.sha256[:12]}…; "
                "install the right one again from where it was made"
            )
        return bundle

    def _is_whole(self, sha256: str) -> bool:
        try:
            self._open(sha256)
        except UserError:
            return False
        return True

    def _numbers(self) -> list[int]:
        """The generations, oldest first."""
        if not self._generations.is_dir():
            return []
        names = [path.name for path in self._generations.iterdir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def _target(self, number: int) -> str:
        """The hash a generation leads to."""
        link = self._generations / str(number)
        try:
            return link.readlink().name
        except OSError:
            raise UserError(f"{link} is no link to a bundle; remove it") from None

    def _current_number(self) -> int:
        """The current generation; 0 where there is none."""
        name = self._current.readlink().name if self._current.is_symlink() else ""
        return int(name) if name.isdecimal() else 0

    def _current_hash(self) -> str | None:
        try:
            if not self._current.is_symlink():
                return None
            return self._current.resolve().name
        except OSError as error:
            raise UserError(f"{self._current} cannot be read: {error.strerror}") from None

    def _before(self) -> int | None:
        """The newest generation below the current one that leads to another bundle."""
        current, sha256 = self._current_number(), self._current_hash()
        below = [number for number in self._numbers() if number < current]
        return next((n for n in reversed(below) if self._target(n) != sha256), None)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock, with an empty `partial/` before and none after."""
        try:
            with locked(self.root, "install or rollback"):
                shutil.rmtree(self._partial, ignore_errors=True)
                for folder in (self._bundles, self._generations, self._partial):
                    folder.mkdir(exist_ok=True)
                try:
                    yield
                finally:
                    shutil.rmtree(self._partial, ignore_errors=True)
        except OSError as error:
            raise UserError(
                f"{error.filename or self.root}: {error.strerror}; see to room and rights in "
                f"{self.root} and try again, 'fer-edge bundle list' says which bundle is current"
            ) from None

    def _copy(self, source: Path) -> Bundle:
        """A verified copy under its hash, on the disc."""
        fresh = self._partial / "new"
        fresh.mkdir()
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, fresh / path.name)
            _sync(fresh / path.name)
        _sync(fresh)
        bundle = open_bundle(fresh)
        place = self._bundles / bundle.sha256
        if place.exists():
            place.rename(self._partial / "damaged")
        fresh.rename(place)
        _sync(self._bundles)
        return Bundle(place, bundle.info, bundle.sha256)

    def _make_current(self, sha256: str) -> None:
        if self._current_hash() == sha256:
            return
        current = self._current_number()
        for undone in reversed([n for n in self._numbers() if n > current]):
            (self._generations / str(undone)).unlink()
        (self._generations / str(current + 1)).symlink_to(Path("..") / "bundles" / sha256)
        _sync(self._generations)
        self._point_at(current + 1)

    def _point_at(self, number: int) -> None:
        """The one step that counts."""
        link = self._partial / "current"
        link.symlink_to(Path("generations") / str(number))
        link.replace(self._current)
        _sync(self.root)

    def _remove_all_but(self, keep: int) -> None:
        current = self._current_number()
        numbers = [number for number in reversed(self._numbers()) if number <= current]
        kept = list(dict.fromkeys(self._target(number) for number in numbers))[:keep]
        for number in reversed(numbers):
            if self._target(number) not in kept:
                (self._generations / str(number)).unlink()
        _sync(self._generations)
        for folder in self._folders():
            if folder.name not in kept:
                # Out of the way first: a bundle under its hash is whole or not there.
                folder.rename(self._partial / folder.name)
