"""One command at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import UserError


@contextmanager
def locked(folder: Path, others: str) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be; a process that dies releases it.

    Raises `UserError` while another command holds it; `others` says which those are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another {others} is at work; try again when it has ended"
            ) from None
        yield
