"""One tiny phase trained to its end by the command itself, shared by the tests of this folder."""

import shutil
from pathlib import Path

import pytest

from tests.trainer.tiny import fer_trainer, make_manifest, make_phase


@pytest.fixture(scope="session")
def phase_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny phase with its data, not yet trained. Other runs of it go by other names."""
    folder = tmp_path_factory.mktemp("tiny")
    make_manifest(folder)
    return make_phase(folder)


@pytest.fixture(scope="session")
def finished(phase_file: Path) -> Path:
    """The folder of a run of it that nothing disturbed. Read only."""
    assert fer_trainer("--phase", str(phase_file), "--name", "whole") == 0
    return phase_file.parent / "runs/whole"


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    shutil.copytree(finished, tmp_path / "runs/whole")
    return tmp_path / "runs/whole"
