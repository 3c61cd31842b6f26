"""What support needs to know about a box, in one archive: text only, no image and no secret."""

import io
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from contract.files import write_atomic
from contract.provenance import commit_of_this_project
from edge.masking import Mask
from edge.sinks.session_csv import HEADER
from firmware_config.profile import Profile
from runtime.machine import cpu_model

SUFFIX = ".tar.gz"
SERVICE = "fer-edge"
LOG_LINES = 500
SESSIONS = 5
MOST_HEADER_BYTES = 64 * 1024
"""A first line that is longer is no header of a session log."""


def journal() -> list[str]:
    """The last lines the service logged, oldest first; none where there is no journal."""
    if shutil.which("journalctl") is None:
        return []
    command = [
        "journalctl", "--unit", SERVICE, "--lines", str(LOG_LINES), "--output", "cat", "--no-pager",
        "--quiet",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.decode(errors="replace").splitlines()


def session_headers(folder: Path) -> dict[str, Any]:
    """The headers of the newest session logs by file name; of the rows nothing is read."""
    headers: dict[str, Any] = {}
    for file in sorted(folder.glob("*.csv"), reverse=True)[:SESSIONS]:
        try:
            with file.open("rb") as stream:
                line = stream.readline(MOST_HEADER_BYTES).decode()
            if line.startswith(HEADER):
                headers[file.name] = json.loads(line.removeprefix(HEADER))
        except (OSError, ValueError):
            continue  # somebody else's file, or one that is just being removed
    return headers


def _versions() -> dict[str, Any]:
    return {
        "commit": commit_of_this_project(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "packages": {
            str(each.metadata["Name"]): each.version
            for each in sorted(distributions(), key=lambda d: str(d.metadata["Name"]).lower())
        },
    }


def pack(
    file: Path, findings: dict[str, Any], profile: Profile, mask: Mask,
    read_journal: Callable[[], list[str]] = journal,
) -> list[str]:  # fmt: skip
    """Write the archive; returns the names of what is in it.

    Every text in it goes through `mask`. Nothing is copied from the disc as it is but the first
    lines of session logs, and those only where they are JSON.
    """
    parts: dict[str, Any] = {
        "doctor.json": findings,
        "versions.json": _versions(),
        "profile.json": profile.model_dump(mode="json"),
        "sessions.json": session_headers(profile.output.session_dir),
    }
    texts = {
        name: json.dumps(mask.tree(part), indent=2, ensure_ascii=False) + "\n"
        for name, part in parts.items()
    }
    lines = read_journal()
    if lines:
        texts["log.txt"] = "".join(f"{mask(line)}\n" for line in lines[-LOG_LINES:])

    def write(stream: Any) -> None:
        now = datetime.now(UTC).timestamp()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name, text in texts.items():
                data = text.encode(errors="replace")
                member = tarfile.TarInfo(f"fer-edge-support/{name}")
                member.size, member.mtime = len(data), int(now)
                archive.addfile(member, io.BytesIO(data))

    write_atomic(file, write)
    return list(texts)
