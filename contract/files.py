"""Atomic writes and content hashes, for every file another process may read."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 lower-case hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomic(path: Path, write: Callable[[IO[bytes]], object], *, mode: int = 0o644) -> None:
    """Call `write(stream)` on a temporary file beside `path`, fsync it, and rename it over `path`.

    A reader sees the old file or the new one, never half of either, and one whom `mode` keeps out
    sees neither.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:  # Ctrl-C too must not leave the temporary file; it is raised again
        Path(name).unlink(missing_ok=True)
        raise


def write_text_atomic(path: Path, text: str) -> None:
    """`write_atomic` for UTF-8 text."""
    write_atomic(path, lambda stream: stream.write(text.encode()))


def write_json_atomic(path: Path, value: Any) -> None:
    """`write_atomic` for JSON, indented, with a final newline; NaN is refused."""
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
