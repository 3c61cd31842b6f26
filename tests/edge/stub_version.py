"""A version of the program that is made in no time and answers as it is told.

In place of an environment: a shell script that stands for its Python and says what `doctor` finds.
"""

import json
from pathlib import Path

import pytest

from edge import install_version
from edge.install_version import MUST_PASS

SCRIPT = """#!/bin/sh
here=$(dirname "$0")
case "$4" in
doctor) cat "$here/findings.json" ;;
install) echo "$@" >> "$here/installed"; echo "$(basename "$(dirname "$here")")" > "$7/units" ;;
esac
"""


def wheel_file(folder: Path, content: str = "", version: str = "0.2.0") -> Path:
    """A file that is named like a wheel; another content is another version."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"fer_edge-{version}-py3-none-any.whl"
    file.write_text(content)
    return file


def findings(**status: str) -> str:
    """What `fer-edge doctor --json` says; checks not named are fine."""
    every = {**dict.fromkeys((*MUST_PASS, "camera"), "ok"), **status}
    rows = [
        {"check": k.replace("_", " "), "status": v, "what": f"{k} told"} for k, v in every.items()
    ]
    return json.dumps({"findings": rows})


class StubMaker:
    """Takes the place of venv and pip; `says` is what the next version's doctor will find."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says = findings()
        self.pip: list[tuple[str, ...]] = []
        monkeypatch.setattr(install_version, "_environment", self._environment)
        monkeypatch.setattr(install_version, "_pip", self._pip)

    def _environment(self, folder: Path) -> None:
        (folder / "bin").mkdir(parents=True)
        python = folder / "bin/python"
        python.write_text(SCRIPT)
        python.chmod(0o755)
        (folder / "bin/fer-edge").write_text(f"#!{python}\n")
        (folder / "bin/findings.json").write_text(self.says)

    def _pip(self, *arguments: str, doing: str) -> None:
        self.pip.append(arguments)
