"""A version of the program on the box: made from a wheel, tried out, one folder for each."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from contract.errors import UserError
from contract.files import sha256_file
from firmware_config.install_layout import COMPLETE, Layout
from firmware_config.profile import Profile

MUST_PASS = ("detector", "runtimes", "model", "golden check")
"""Checks of `fer-edge doctor` that tell of the version; the others tell of the box."""

SOURCE_TREE = Path(__file__).resolve().parent.parent
UNREADABLE = ("/home", "/root", "/run/user", "/tmp")
"""Where a service with ProtectHome= and PrivateTmp= sees nothing."""

SELF_TEST_S = 180.0

ISOLATED = ("-I", "-m")
"""How Python is run for a version: nothing counts that PYTHONPATH or a home folder adds to it."""


@dataclass(frozen=True)
class Source:
    """What a version is made from.

    `wheels`, where given, is a folder that holds every wheel needed: no index is asked.
    `constraints` is a file of versions to keep to.
    """

    wheel: Path
    wheels: Path | None = None
    constraints: Path | None = None

    @cached_property
    def version(self) -> str:
        """The version's name: its number and the start of its wheel's SHA-256.

        Raises `UserError` for what is not a wheel of this program.
        """
        parts = self.wheel.name.split("-")
        if not self.wheel.is_file() or self.wheel.suffix != ".whl" or len(parts) < 5:
            raise UserError(f"{self.wheel}: no such wheel; name a file fer_edge-….whl")
        if parts[0] != "fer_edge" or not re.fullmatch(r"[\w.+!]+", parts[1]):
            raise UserError(f"{self.wheel}: a wheel of '{parts[0]}', not of fer_edge")
        return f"{parts[1]}-{sha256_file(self.wheel)[:8]}"


@contextmanager
def source_from(wheel: Path | None, wheels: Path | None) -> Iterator[Source]:
    """The named wheel, or one built of the tree that runs, if it runs from one.

    Raises `UserError` where there is neither, or the build fails.
    """
    if wheels is not None and not wheels.is_dir():
        raise UserError(f"--wheels {wheels}: no such folder")
    if wheel is not None:
        yield Source(wheel, wheels)
        return
    if not (SOURCE_TREE / "pyproject.toml").is_file():
        raise UserError("this program runs from no source tree; name its wheel with --wheel FILE")
    with tempfile.TemporaryDirectory(prefix="fer-edge-wheel-") as folder:
        yield Source(_build(Path(folder), wheels), wheels, SOURCE_TREE / "constraints.txt")


def _build(folder: Path, wheels: Path | None) -> Path:
    """A wheel of the tree, built of a copy: what a build leaves behind, the next one would take."""
    project = tomllib.loads((SOURCE_TREE / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = [
        name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]
    ]
    tree = folder / "tree"
    for room in rooms:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SOURCE_TREE / room, tree / room, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(SOURCE_TREE / name, tree / name)
    _pip(
        sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), *_from(wheels), str(tree),
        doing="building the wheel",
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def _from(wheels: Path | None) -> list[str]:
    return [] if wheels is None else ["--no-index", "--find-links", str(wheels)]


def _pip(python: str, *arguments: str, doing: str) -> None:
    """Run that Python's pip. Raises `UserError` with the line that says most."""
    done = subprocess.run(
        [python, *ISOLATED, "pip", "--disable-pip-version-check", *arguments],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        faults = [line for line in said if line.startswith("ERROR:")] or said
        raise UserError(f"{doing} failed: {faults[0] if faults else 'pip says nothing'}")


def extras_for(profile: Profile) -> list[str]:
    """The optional parts a box with this profile needs: messages always, the demo's portraits."""
    return ["fleet", *(["demo"] if profile.camera.source == "demo" else [])]


def make_version(layout: Layout, source: Source, extras: Sequence[str]) -> str:
    """An environment with the wheel and what it needs, beside the others; returns its name.

    One that is there is kept; one that was interrupted is made anew. Raises `UserError`, and
    leaves nothing, where it cannot be made.
    """
    version = source.version
    folder = layout.versions / version
    if layout.is_whole(version):
        return version
    if layout.is_this_machine and sys.base_prefix.startswith(UNREADABLE):
        raise UserError(
            f"the Python in {sys.base_prefix} is out of a service's reach; "
            "run this with the system's own: python3 -m venv"
        )
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _environment(folder)
        constraints = ["--constraint", str(source.constraints)] if source.constraints else []
        wanted = f"fer-edge[{','.join(extras)}] @ {source.wheel.resolve().as_uri()}"
        _pip(
            str(folder / "bin/python"), "install", *_from(source.wheels), *constraints, wanted,
            doing=f"installing {source.wheel.name}",
        )  # fmt: skip
        _move(folder, layout)
        (folder / COMPLETE).touch()
    except BaseException:  # Ctrl-C too must not leave a part of it; it is raised again
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return version


def _environment(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(
            f"no environment can be made in {folder}: "
            f"{(done.stdout + done.stderr).strip()[:300]}; on Debian: apt-get install python3-venv"
        )


def _move(folder: Path, layout: Layout) -> None:
    """Have commands name their place as the box will see it, not where it is now."""
    if layout.is_this_machine:
        return
    here, there = str(folder), str(layout.on_the_box(folder))
    for file in (folder / "bin").iterdir():
        if not file.is_symlink():
            file.write_bytes(file.read_bytes().replace(here.encode(), there.encode()))


def run_version(
    layout: Layout, version: str, *arguments: object, limit_s: float = SELF_TEST_S
) -> subprocess.CompletedProcess[str]:
    """Run `fer-edge` of a version, with caches that are thrown away and the box's own bundles.

    Raises `UserError` where it does not end within `limit_s` seconds.
    """
    command = [str(layout.versions / version / "bin/python"), *ISOLATED, "edge"]
    with tempfile.TemporaryDirectory(prefix="fer-edge-test-") as cache:
        own = {
            "XDG_CACHE_HOME": cache,
            "FER_STORE": str(layout.home / "bundles"),
            "FER_MODELS": str(layout.models),
        }
        try:
            return subprocess.run(
                [*command, *map(str, arguments)], cwd=cache, env={**os.environ, **own},
                capture_output=True, text=True, errors="replace", timeout=limit_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UserError(
                f"version {version} did not answer within {limit_s:g} s: "
                f"fer-edge {' '.join(map(str, arguments))}"
            ) from None


def self_test(layout: Layout, version: str, profile: Path) -> list[str]:
    """What a version is not fit for on this machine with this profile; empty where all is well.

    Camera, disk and the like do not count: they are the box's, whichever version runs.
    """
    try:
        done = run_version(layout, version, "doctor", "--json", "--profile", profile)
    except UserError as error:
        return [str(error)]
    try:
        findings = json.loads(done.stdout)["findings"]
        faults = [
            f"{each['check']}: {each['what']}"
            for each in findings
            if each["check"] in MUST_PASS and each["status"] == "fail"
        ]
        missing = set(MUST_PASS) - {each["check"] for each in findings}
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        return [f"fer-edge doctor ended with {done.returncode}: {said[-1]}"]
    return [*faults, *(f"{name}: not looked at" for name in sorted(missing))]
