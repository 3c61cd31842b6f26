"""A fake box and a dashboard on it, shared by a test module."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboard.fake_edge import FakeEdge, fake_edge
from tests.dashboard.processes import dashboard


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for sockets; pytest's own are too long for some."""
    with tempfile.TemporaryDirectory(prefix="fer-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def edge(folder: Path) -> Iterator[FakeEdge]:
    with fake_edge(folder) as running:
        yield running


@pytest.fixture(scope="module")
def url(edge: FakeEdge) -> Iterator[str]:
    """The URL of a dashboard without a token."""
    with dashboard(edge.address.folder) as printed:
        yield printed
