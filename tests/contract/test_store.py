"""Installed bundles: what is current works at every moment, and every step can be undone."""

import errno
import fcntl
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.bundle import BUNDLE_FILE, Bundle, open_bundle
from contract.checksums import write_sums
from contract.errors import UserError
from contract.store import BundleStore
from tests.models import make_float_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Three small bundles."""
    folder = tmp_path_factory.mktemp("made")
    texts = {"model_card.md": "# card\n"}
    return [make_float_bundle(folder / n, seed=i, name=n, texts=texts) for i, n in enumerate("abc")]


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "deep/store")


def name_of(bundle: Bundle | None) -> str:
    """The name of a bundle; none is the built-in one."""
    return bundle.info.name if bundle else "built-in"


def names(store: BundleStore) -> set[str]:
    return {name_of(each.bundle) for each in store.installed()}


def top(store: BundleStore) -> set[str]:
    """What lies in the store when nothing is at work in it."""
    return {path.name for path in store.root.iterdir()}


def tamper(folder: Path, file: str = "student.onnx") -> None:
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)


def test_an_empty_store_has_nothing_and_is_not_made_by_looking(store: BundleStore) -> None:
    assert store.current() is None
    assert store.installed() == []
    assert not store.root.exists()


def test_an_installed_bundle_is_a_whole_copy_under_its_hash(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    installed = store.install(bundles[0].folder)
    current = store.current()
    assert current is not None and current.sha256 == installed.sha256 == bundles[0].sha256
    assert current.folder == installed.folder == store.root / "bundles" / bundles[0].sha256
    assert open_bundle(store.root / "current").sha256 == bundles[0].sha256
    for path in bundles[0].folder.iterdir():
        assert (current.folder / path.name).read_bytes() == path.read_bytes()
    assert top(store) == {"bundles", "generations", "current", "lock"}


def test_a_store_can_be_moved_as_a_whole(
    store: BundleStore, bundles: list[Bundle], tmp_path: Path
) -> None:
    store.install(bundles[0].folder)
    store.install(bundles[1].folder)
    store.root.rename(tmp_path / "elsewhere")
    moved = BundleStore(tmp_path / "elsewhere")
    assert name_of(moved.current()) == "b"
    assert name_of(moved.rollback()) == "a"


def test_a_bundle_in_use_stays_where_it_is_through_a_switch(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    store.install(bundles[0].folder)
    in_use = store.current()
    store.install(bundles[1].folder)
    assert in_use is not None and open_bundle(in_use.folder).sha256 == bundles[0].sha256


def test_rollback_undoes_one_switch_after_the_other(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    for bundle in bundles:
        store.install(bundle.folder)
    assert [name_of(store.rollback()) for _ in range(3)] == ["b", "a", "built-in"]
    assert store.current() is None
    with pytest.raises(UserError, match="nothing to undo"):
        store.rollback()
    assert names(store) == {"a", "b", "c"}


def test_a_rollback_never_leads_to_what_was_rolled_back(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    store.install(bundles[0].folder)
    store.install(bundles[1].folder)
    store.rollback()
    store.install(bundles[2].folder)
    assert name_of(store.rollback()) == "a"


def test_the_same_bundle_again_changes_nothing_but_what_is_current(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    first = store.install(bundles[0].folder).folder
    before = first.stat()
    store.install(bundles[0].folder)
    assert name_of(store.rollback()) == "built-in", "it is no second step"
    store.install(bundles[0].folder)
    store.install(bundles[1].folder)
    store.install(bundles[0].folder)
    assert name_of(store.current()) == "a"
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert name_of(store.rollback()) == "b"


def test_a_damaged_copy_is_mended_by_installing_it_again(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    tamper(store.install(bundles[0].folder).folder)
    with pytest.raises(UserError, match=r"student\.onnx does not match its hash"):
        store.current()
    store.install(bundles[0].folder)
    assert name_of(store.current()) == "a"
    assert top(store) == {"bundles", "generations", "current", "lock"}


def test_a_tampered_bundle_is_refused_and_the_old_one_stays(
    store: BundleStore, bundles: list[Bundle], tmp_path: Path
) -> None:
    store.install(bundles[0].folder)
    shutil.copytree(bundles[1].folder, tmp_path / "bad")
    tamper(tmp_path / "bad", "model_card.md")
    with pytest.raises(UserError, match=r"bad/model_card\.md does not match its hash"):
        store.install(tmp_path / "bad")
    assert name_of(store.current()) == "a"
    assert names(store) == {"a"}


def test_an_installed_bundle_altered_with_all_its_hashes_is_refused(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    """Its place is named by the hash it had."""
    folder = store.install(bundles[0].folder).folder
    (folder / BUNDLE_FILE).write_text((folder / BUNDLE_FILE).read_text().replace('"a"', '"x"'))
    write_sums(folder)
    with pytest.raises(UserError, match="holds another bundle"):
        store.current()


def test_a_rollback_to_a_damaged_bundle_is_refused_and_changes_nothing(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    folder = store.install(bundles[0].folder).folder
    store.install(bundles[1].folder)
    tamper(folder)
    with pytest.raises(UserError, match=str(folder)):
        store.rollback()
    assert name_of(store.current()) == "b"


def test_the_list_says_what_is_current_previous_and_damaged(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    for at, bundle in enumerate(bundles):
        os.utime(store.install(bundle.folder).folder, (1e9 + at, 1e9 + at))
    tamper(store.root / "bundles" / bundles[0].sha256)
    newest, middle, oldest = store.installed()
    assert (newest.sha256, newest.current, newest.previous) == (bundles[2].sha256, True, False)
    assert (middle.sha256, middle.current, middle.previous) == (bundles[1].sha256, False, True)
    assert (oldest.current, oldest.previous, oldest.bundle) == (False, False, None)
    assert "student.onnx does not match its hash" in oldest.fault
    assert newest.installed.timestamp() == 1e9 + 2
    assert newest.fault == "" and name_of(newest.bundle) == "c"


@pytest.mark.parametrize(("keep", "left"), [(1, {"c"}), (2, {"b", "c"}), (9, {"a", "b", "c"})])
def test_only_as_many_as_asked_for_are_kept(
    store: BundleStore, bundles: list[Bundle], keep: int, left: set[str]
) -> None:
    for bundle in bundles[:2]:
        store.install(bundle.folder)
    store.install(bundles[2].folder, keep=keep)
    assert names(store) == left
    assert name_of(store.current()) == "c"
    steps = [name_of(store.rollback()) for _ in left]
    assert steps == [*sorted(left - {"c"}, reverse=True), "built-in"]


def test_one_that_was_rolled_back_is_the_first_to_go(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    store.install(bundles[0].folder)
    store.install(bundles[1].folder)
    store.rollback()
    store.install(bundles[2].folder, keep=2)
    assert names(store) == {"a", "c"}


def test_two_at_once_is_refused_in_one_line(store: BundleStore, bundles: list[Bundle]) -> None:
    store.install(bundles[0].folder)
    store.install(bundles[1].folder)
    with (store.root / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for change in (lambda: store.install(bundles[2].folder), store.rollback):
            with pytest.raises(UserError, match="another install or rollback is at work"):
                change()
        assert name_of(store.current()) == "b", "reading needs no lock"
    store.install(bundles[2].folder)
    assert name_of(store.current()) == "c"


@settings(max_examples=30)
@given(steps=st.lists(st.sampled_from([0, 1, 2, "back"]), max_size=8))
def test_any_sequence_of_steps_does_what_a_stack_would(
    tmp_path_factory: pytest.TempPathFactory, bundles: list[Bundle], steps: list[Any]
) -> None:
    store = BundleStore(tmp_path_factory.mktemp("steps"))
    stack = ["built-in"]
    for step in steps:
        if step != "back":
            name = name_of(store.install(bundles[step].folder))
            stack += [name] if name != stack[-1] else []
        elif len(stack) == 1:
            with pytest.raises(UserError):
                store.rollback()
        else:
            stack.pop()
            assert name_of(store.rollback()) == stack[-1]
        assert name_of(store.current()) == stack[-1]


class Installer:
    """The process of `tests.contract.interrupted`, over a store that begins with `a` current."""

    def __init__(self, store: BundleStore, bundles: list[Bundle], keep: Path) -> None:
        self.store, self.bundles, self._begin = store, bundles, keep
        store.install(bundles[0].folder)
        shutil.copytree(store.root, keep, symlinks=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.interrupted", store.root, bundles[1].folder],
            cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def install(self, moment: str) -> str:
        """From the beginning: install `b`, killed at a moment. How it ended."""
        shutil.rmtree(self.store.root)
        shutil.copytree(self._begin, self.store.root, symlinks=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        print(moment, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def check(self) -> str:
        """What is current, which works; the next install does too, and leaves nothing behind."""
        found = name_of(self.store.current())
        assert names(self.store) <= {"a", "b"}, "what lies under its hash is whole"
        self.store.install(self.bundles[2].folder)
        assert name_of(self.store.current()) == "c"
        assert top(self.store) == {"bundles", "generations", "current", "lock"}
        assert name_of(self.store.rollback()) == found
        return found

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def installer(store: BundleStore, bundles: list[Bundle], tmp_path: Path) -> Iterator[Installer]:
    one = Installer(store, bundles, tmp_path / "begin")
    yield one
    one.close()


def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_one(installer: Installer) -> None:
    found: list[str] = []
    while installer.install(f"call {len(found) + 1}") == "killed":
        found.append(installer.check())
        assert len(found) < 1000
    assert installer.check() == "b", "the last one was not killed"
    assert len(found) > 30
    switch = found.index("b")
    assert found == ["a"] * switch + ["b"] * (len(found) - switch)


def test_a_kill_at_any_time_leaves_the_old_or_the_new_one(installer: Installer) -> None:
    assert installer.install("call 1000000") == "done"  # the process has started now
    began = time.monotonic()
    assert installer.install("call 1000000") == "done"
    lasts_s = time.monotonic() - began
    rng, ends = random.Random(0), set()
    for _ in range(25):
        ends.add(installer.install(f"after {rng.uniform(0, 1.2 * lasts_s):.6f}"))
        assert installer.check() in ("a", "b")
    assert "killed" in ends


@pytest.mark.parametrize("call", ["fsync", "symlink", "replace", "rename", "sendfile"])
def test_a_disc_that_fails_is_one_line_and_leaves_the_old_or_the_new_one(
    store: BundleStore, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real: Callable[..., Any] = getattr(os, call)
    left = 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **named)

    monkeypatch.setattr(os, call, failing)
    failed = 0
    for number in range(1, 100):
        shutil.rmtree(store.root, ignore_errors=True)
        left = 0
        store.install(bundles[0].folder)
        left = number
        try:
            store.install(bundles[1].folder)
        except UserError as error:
            assert "No space left on device" in str(error) and str(store.root) in str(error)
            failed += 1
        else:
            assert left > 0
            break
        assert name_of(store.current()) in ("a", "b")
        assert top(store) == {"bundles", "generations", "current", "lock"}
        store.install(bundles[1].folder)
        assert name_of(store.current()) == "b"
        assert name_of(store.rollback()) == "a"
    assert failed


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_may_not_be_written_is_one_line(tmp_path: Path, bundles: list[Bundle]) -> None:
    (tmp_path / "mine").mkdir(mode=0o500)
    with pytest.raises(UserError, match="Permission denied"):
        BundleStore(tmp_path / "mine/store").install(bundles[0].folder)


def test_a_store_in_the_place_of_a_file_is_one_line(tmp_path: Path, bundles: list[Bundle]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        BundleStore(tmp_path / "file").install(bundles[0].folder)


def test_a_current_that_leads_nowhere_is_named_and_mended_by_an_install(
    store: BundleStore, bundles: list[Bundle]
) -> None:
    folder = store.install(bundles[0].folder).folder
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=f"no bundle at {folder}"):
        store.current()
    store.install(bundles[0].folder)
    assert name_of(store.current()) == "a"
