"""How long `fer-trainer data validate` takes for a large manifest, and how much memory.

    python benchmarks/manifest_validation.py --json benchmarks/DATE-manifest-validation.json

The manifest is synthetic: every row has all optional columns (votes, a group, a hash), and every
path is a real, empty file, so that looking for the images costs what it does. The files were made
a moment before, so the file system's answers come from memory. Nothing is decoded
(`--decode none`); copies are looked for by the `sha256` column, leaks by it and by group.
What is measured is the command in a process of its own, interpreter and imports included.
"""

import argparse
import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contract.expressions import EXPRESSIONS
from contract.files import write_json_atomic
from contract.manifest import REQUIRED, SPLITS, VOTES

PROJECT = Path(__file__).resolve().parent.parent
PER_FOLDER = 10_000
PER_GROUP = 3


def make_manifest(folder: Path, rows: int) -> Path:
    """A valid manifest of so many rows in a new folder, and its empty images."""
    file = folder / "manifest.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*REQUIRED, *VOTES, "group", "sha256"])
        for number in range(rows):
            image = Path(f"images/{number // PER_FOLDER:03d}/face{number:07d}.png")
            if number % PER_FOLDER == 0:
                (folder / image.parent).mkdir(parents=True)
            (folder / image).touch()
            group = number // PER_GROUP
            label = number % len(EXPRESSIONS)
            votes = [0] * len(EXPRESSIONS)
            votes[label], votes[(label + number % 5) % len(votes)] = 7, 3
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            split = SPLITS[0] if group % 10 < 7 else SPLITS[group % 10 - 6]
            place = [image, EXPRESSIONS[label], split, f"source{number % 8}"]
            writer.writerow([*place, *votes, f"person{group:06d}", digest])
    return file


def measure(file: Path) -> tuple[float, float]:
    """Seconds and peak resident megabytes of one validation."""
    began = time.perf_counter()
    # This process imports little and stays small: a child's peak starts with its parent's memory.
    child = subprocess.Popen(
        [sys.executable, "-m", "trainer", "data", "validate", str(file), "--decode", "none"],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the validation ended with {child.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def main() -> None:
    """Make, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=466_284)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = make_manifest(Path(folder), given.rows)
        size_mb = file.stat().st_size / 2**20
        runs = [measure(file) for _ in range(given.repeat)]
    seconds, peaks = zip(*runs, strict=True)
    result = {
        "rows": given.rows,
        "images": "real, empty files, freshly made",
        "manifest_mb": size_mb,
        "wall_s": {
            "min": min(seconds), "median": statistics.median(seconds), "max": max(seconds),
        },
        "peak_rss_mb": max(peaks),
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if given.json:
        from trainer.record import run_record  # brings torch, so not before the measurement

        command = "python benchmarks/manifest_validation.py"
        write_json_atomic(given.json, {**result, "run": run_record(command, sys.argv[1:])})


if __name__ == "__main__":
    main()
