"""A fake box and a dashboard on it, shared by a test module."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.dashboard.fake_edge import VALUES, FakeEdge, fake_edge
from tests.dashboard.processes import CHROMIUM, CHROMIUM_ARGUMENTS, dashboard
from tests.dashboard.watched import Watched


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS, headless=True
        )
        yield browser
        browser.close()


@pytest.fixture
def watched(browser: Browser, edge: FakeEdge) -> Iterator[Watched]:
    """A page in a browser that remembers nothing; the box is as it was again afterwards."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(10_000)
    yield Watched(page)
    context.close()
    edge.people = [1, 4]
    edge.kpi_changes = {}
    edge.speaking = edge.answering = True
    edge.values = dict(VALUES)
    edge.corrections, edge.restart = [], []
