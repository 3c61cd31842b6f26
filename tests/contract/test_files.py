"""Atomic writes: a reader sees the old file or the new one."""

import hashlib
import os
import stat
import threading
from pathlib import Path
from typing import IO

import pytest

from contract.files import sha256_file, write_atomic, write_json_atomic, write_text_atomic


def test_the_file_and_its_folders_are_made(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "a/b/c.txt", "früh\n")
    assert (tmp_path / "a/b/c.txt").read_text(encoding="utf-8") == "früh\n"
    # Other users' processes read it: mkstemp alone would leave it 0600.
    assert stat.S_IMODE((tmp_path / "a/b/c.txt").stat().st_mode) == 0o644


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("old")

    def fails(stream: IO[bytes]) -> None:
        stream.write(b"half of the n")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomic(file, fails)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_writer_that_fails_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(tmp_path / "x.json", {"ece": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_json_is_indented_and_ends_its_last_line(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "x.json", {"a": [1]})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": [\n    1\n  ]\n}\n'


def test_a_reader_never_sees_half(tmp_path: Path) -> None:
    file = tmp_path / "state"
    write_text_atomic(file, "0" * 100_000)
    done = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for digit in "123456789" * 3:
        write_text_atomic(file, digit * 100_000)
    done.set()
    reader.join()
    assert seen
    assert all(len(text) == 100_000 and len(set(text)) == 1 for text in seen)


def test_a_link_to_the_file_keeps_the_old_content(tmp_path: Path) -> None:
    """The rename puts a new file in place; it does not write into the old one."""
    write_text_atomic(tmp_path / "x", "old")
    os.link(tmp_path / "x", tmp_path / "held open by a reader")
    write_text_atomic(tmp_path / "x", "new")
    assert (tmp_path / "held open by a reader").read_text() == "old"


def test_sha256_is_hashlibs(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()
