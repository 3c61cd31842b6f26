"""The rows of one or several manifests, numbered through."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from contract.manifest import Manifest, Row


@dataclass(frozen=True)
class Table:
    """Manifests whose rows are numbered one after another."""

    manifests: Sequence[Manifest]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(len(manifest.rows) for manifest in self.manifests))

    @cached_property
    def _folders(self) -> dict[tuple[Path, str], str]:
        return {}

    @cached_property
    def rows(self) -> list[Row]:
        """All rows."""
        return [row for manifest in self.manifests for row in manifest.rows]

    def manifest_of(self, number: int) -> Manifest:
        """The manifest a row is from."""
        return self.manifests[next(n for n, end in enumerate(self._ends) if number < end)]

    def path(self, number: int) -> Path:
        """Where the image of a row lies."""
        return self.manifest_of(number).path(self.rows[number])

    def place(self, number: int) -> str:
        """Manifest, line, image and split of a row, for messages."""
        row = self.rows[number]
        return f"{self.manifest_of(number).place(row)} ({row.split})"

    def file(self, number: int) -> str:
        """The absolute path of a row's image, the same by whatever links and dots it is named."""
        manifest = self.manifest_of(number)
        head, name = os.path.split(self.rows[number].path)
        key = (manifest.file, head)
        if key not in self._folders:
            self._folders[key] = str((manifest.file.parent / head).resolve())
        return f"{self._folders[key]}{os.sep}{name}"

    def rebased(self, numbers: Iterable[int], folder: Path) -> Iterator[Row]:
        """Rows with their paths as seen from `folder`; the images stay where they are."""
        start = str(folder.resolve())
        for number in numbers:
            yield replace(self.rows[number], path=os.path.relpath(self.file(number), start))
