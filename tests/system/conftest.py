"""What the tests of the real commands share."""

from pathlib import Path

import pytest

from contract.bundle import Bundle
from tests.edge.conftest import demo_portraits, face_image
from tests.models import make_float_bundle, make_images

__all__ = ["demo_portraits", "face_image"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of these tests: the runtimes are measured once, as on a box that has run before."""
    return tmp_path_factory.mktemp("home") / "cache"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A float bundle for grey 48×48 faces, made in milliseconds."""
    return make_float_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Seven labelled images under `tmp_path`."""
    return make_images(tmp_path, per_class=1)
