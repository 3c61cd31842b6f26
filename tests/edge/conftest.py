"""What the tests of the edge share: a tiny model, portraits, a cache that is not the user's."""

from pathlib import Path

import cv2
import pytest

from contract.bundle import Bundle
from contract.faces import Box, Image
from edge.detect import Detection
from tests.models import make_float_bundle


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A float bundle for grey 48×48 faces, made in milliseconds."""
    return make_float_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Measured choices are kept in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def demo_portraits() -> None:
    """Skips where the portraits of the demo camera are not installed."""
    for module in ("skimage.data", "matplotlib"):
        pytest.importorskip(module, reason="the demo's portraits are not installed: extra 'demo'")


@pytest.fixture
def face_image(tmp_path: Path, demo_portraits: None) -> Path:
    """A photo of one person, 512×512, public domain, as an image file."""
    from skimage import data

    file = tmp_path / "astronaut.png"
    cv2.imwrite(str(file), data.astronaut()[..., ::-1])
    return file


class _AlwaysAFace:
    """Takes the middle of every frame for a face, whatever is there."""

    name = "haar"
    note = ""

    def detect(self, image: Image) -> list[Detection]:
        height, width = image.shape[:2]
        return [Detection(Box(width / 2 - 50, height / 2 - 50, 100, 100), 1.0)]


@pytest.fixture
def always_a_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines see a face in the middle of every frame: for images that are not of faces."""
    monkeypatch.setattr("edge.setup.make_detector", lambda *_, **__: _AlwaysAFace())
