"""What every room uses: where the shared data are, if they are on this machine at all."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is slow now and then; pytest's own time limit catches what hangs. A developer's
# runs look for new examples, CI's take the same ones each time: a change is judged by itself.
settings.register_profile("project", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("project")

PROJECT = Path(__file__).resolve().parent.parent


def _limit_s(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None else 0.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a test that is given long come first: none is left for one worker at the end."""
    longest: dict[Path, float] = {}
    for item in items:
        longest[item.path] = max(longest.get(item.path, 0.0), _limit_s(item))
    items.sort(key=lambda item: -longest[item.path])


def shared_folder() -> Path:
    """The folder of data that is never committed: `FER_SHARED`, or `../shared` from the project."""
    return Path(os.environ.get("FER_SHARED") or PROJECT.parent / "shared")


@pytest.fixture(scope="session", autouse=True)
def no_bundle_installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, nor a program it starts, picks up what is installed on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_STORE", str(tmp_path_factory.mktemp("store") / "empty"))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared folder (`data/`, `models/`, `video/`); skips the test where it is absent."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"needs the shared data, and there is no {folder} (FER_SHARED names another)")
    return folder
