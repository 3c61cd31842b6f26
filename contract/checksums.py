"""`SHA256SUMS`: the hash of every other file of a folder, in the form `sha256sum -c` reads."""

import re
from collections.abc import Mapping
from pathlib import Path

from contract.errors import UserError
from contract.files import sha256_file, write_text_atomic

SUMS_FILE = "SHA256SUMS"
COPY_AGAIN = "copy the bundle again from where it was made"
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._+-]+)")


def write_sums(folder: Path) -> None:
    """List every file of `folder` with its hash, atomically, replacing a list already there."""
    names = sorted(path.name for path in folder.iterdir() if path.name != SUMS_FILE)
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in names]
    write_text_atomic(folder / SUMS_FILE, "".join(lines))


def damaged(folder: Path, why: str) -> UserError:
    """The fault of a list that cannot be right itself."""
    return UserError(f"{folder / SUMS_FILE} is damaged: {why}; {COPY_AGAIN}")


def read_sums(folder: Path) -> dict[str, str]:
    """Hashes by file name. Raises `UserError` for a list that is missing or malformed.

    Strict, so that no bit of it can change unnoticed: lower-case digits, two spaces, a plain file
    name once, a line end after every line.
    """
    file = folder / SUMS_FILE
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing from the bundle; copy the whole folder again, or for one made "
            f"before bundles had it: (cd '{folder}' && sha256sum * > {SUMS_FILE})"
        ) from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; {COPY_AGAIN}") from None
    lines = content.decode("ascii", errors="replace").split("\n")
    if lines.pop() or not lines:
        raise damaged(folder, "its last line is cut short")
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise damaged(folder, f"line {number} is not a hash, two spaces and a file name")
        if match[2] in sums:
            raise damaged(folder, f"line {number} lists '{match[2]}' again")
        sums[match[2]] = match[1]
    return sums


def hash_of(path: Path) -> str:
    """`sha256_file`; a file that cannot be read is a `UserError`."""
    try:
        return sha256_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {COPY_AGAIN}") from None


def check_hash(folder: Path, name: str, listed: str, found: str, vouched: str | None) -> None:
    """Refuse a file whose hash is not the listed one, or the list where that is what changed.

    It is the list if another record vouches for what was found. It is also the list if the two
    hashes are alike: those of different contents share 4 of their 64 digits on average, never half.
    """
    if found == listed:
        return
    alike = sum(a == b for a, b in zip(listed, found, strict=True))
    if found == vouched or alike >= 32:
        raise damaged(folder, f"its hash of '{name}' is wrong")
    raise UserError(
        f"{folder / name} does not match its hash in {SUMS_FILE}: damaged or tampered with; "
        f"{COPY_AGAIN}"
    )


def check_files(folder: Path, sums: Mapping[str, str], vouched: Mapping[str, str]) -> None:
    """Refuse a folder that is not exactly what `sums` lists, naming the file at fault.

    `vouched` are hashes of some of the files by another record. Raises `UserError` for a file that
    is missing, does not match its hash or is not listed, or for a damaged list.
    """
    unlisted = sorted({path.name for path in folder.iterdir()} - {*sums, SUMS_FILE})
    for name, listed in sums.items():
        path = folder / name
        if path.is_file():
            check_hash(folder, name, listed, hash_of(path), vouched.get(name))
            continue
        for other in unlisted:
            if (folder / other).is_file() and hash_of(folder / other) == listed:
                raise damaged(folder, f"what it lists as '{name}' is the file '{other}'")
        raise UserError(f"{path} is missing from the bundle; copy the whole folder again")
    for name in unlisted:
        if name in vouched:
            raise damaged(folder, f"it does not list '{name}'")
        raise UserError(
            f"{folder / name} does not belong to the bundle: it is not in {SUMS_FILE}; remove it"
        )
