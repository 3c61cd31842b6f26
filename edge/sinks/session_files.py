"""The files of session logs: how parts are called, and which are deleted when too many."""

import logging
import re
from pathlib import Path

from contract.session_names import SESSION_NAME

RECENT_S = 60.0
"""A file written to so lately may be another program's, and in use."""

_PART = re.compile(r"(?P<session>.+)\.part(?P<number>\d+)\.csv")

log = logging.getLogger(__name__)


def part_file(file: Path, number: int) -> Path:
    """`NAME.csv` and the number of a part → `NAME.csv` for the first, else `NAME.part2.csv`, …"""
    return file if number == 1 else file.with_name(f"{file.stem}.part{number}.csv")


def split_part(file: Path) -> tuple[Path, int]:
    """The inverse of `part_file`: a session's first file, and the number of the part."""
    found = _PART.fullmatch(file.name)
    if found is None:
        return file, 1
    return file.with_name(f"{found['session']}.csv"), int(found["number"])


def prune(current: Path, total_bytes: int, age_s: float, now: float) -> None:
    """Delete logs beside `current`: those too old, then the oldest beyond `total_bytes` together.

    Only files named as `fer-edge` names them are touched, never `current` nor one that was written
    to in the last minute. `now` is the wall clock, seconds since 1970.
    """
    found = []
    for file in current.parent.iterdir():
        if SESSION_NAME.fullmatch(file.name) and file.name != current.name:
            status = file.stat()
            found.append((status.st_mtime, status.st_size, file))
    found.sort(reverse=True)
    kept = 0
    for written, size, file in found:
        kept += size
        if (kept > total_bytes or now - written > age_s) and now - written > RECENT_S:
            kept -= size
            try:
                file.unlink()
                log.info("old session log deleted: %s", file)
            except OSError as error:
                log.warning("old session log %s cannot be deleted: %s", file, error.strerror)
