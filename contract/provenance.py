"""Which commit of this project is running."""

import subprocess
from pathlib import Path


def commit_of_this_project() -> str:
    """The commit's hash, with `-dirty` for changed files, or `unknown` outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
