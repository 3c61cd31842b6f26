"""`fer-edge bundle` as an operator uses it, and what the box then runs."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.bundle import Bundle
from contract.command import run_command
from edge import bundles as bundles_module
from edge.bundles import DEFAULT_BUNDLE, bundle_to_run, store_folder
from edge.cli import main
from edge.setup import start_engine
from firmware_config.profile import load_profile
from tests.models import make_float_bundle, rehash, tiny_graph

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test, named as on a box."""
    monkeypatch.setenv("FER_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_float_bundle(tmp_path_factory.mktemp("second") / "bundle", seed=1, name="second")


@pytest.fixture
def bundle(capsys: pytest.CaptureFixture[str], store: Path) -> Command:
    """`fer-edge bundle …`: its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command("fer-edge", lambda: main(["bundle", *map(str, arguments)]))
        return code, *capsys.readouterr()

    return run


def tamper(folder: Path, file: str = "student.onnx") -> None:
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)


def refused(done: tuple[int, str, str]) -> str:
    """The one line a command refuses with."""
    code, _, err = done
    (line,) = [line for line in err.splitlines() if line.startswith("fer-edge: ")]
    assert code == 2 and "Traceback" not in err
    return line


def test_what_is_installed_runs_and_a_rollback_brings_the_other_back(
    bundle: Command, tiny: Bundle, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles_module, "DEFAULT_BUNDLE", tiny.folder)
    code, out, _ = bundle("install", second.folder)
    assert code == 0
    assert "second" in out and "works on this machine: fp32 on " in out and "current: " in out
    assert bundle_to_run(None).sha256 == second.sha256
    assert bundle_to_run(tiny.folder).sha256 == tiny.sha256, "a named one comes first"
    bundle("install", tiny.folder)
    assert bundle("rollback")[:2] == (
        0, f"current: second ({second.sha256[:12]}); a fer-edge that runs takes it up at its next "
        "start\n",
    )  # fmt: skip
    assert bundle_to_run(None).sha256 == second.sha256
    assert "none, the built-in bundle runs" in bundle("rollback")[1]
    assert bundle_to_run(None).folder == tiny.folder
    assert "nothing to undo" in refused(bundle("rollback"))


def test_a_bundle_that_answers_otherwise_here_is_refused_and_the_old_one_stays(
    bundle: Command, tiny: Bundle, second: Bundle, tmp_path: Path, store: Path
) -> None:
    bundle("install", tiny.folder)
    shutil.copytree(second.folder, tmp_path / "other")
    graph = tiny_graph(second.info.input, scale=0.3)
    (tmp_path / "other/student.onnx").write_bytes(graph.SerializeToString())
    rehash(tmp_path / "other")
    line = refused(bundle("install", tmp_path / "other"))
    assert "golden check failed" in line and str(tmp_path / "other") in line
    assert bundle_to_run(None).sha256 == tiny.sha256
    assert len(list((store / "bundles").iterdir())) == 1


def test_a_tampered_bundle_is_refused_by_file(
    bundle: Command, tiny: Bundle, tmp_path: Path, store: Path
) -> None:
    shutil.copytree(tiny.folder, tmp_path / "bad")
    tamper(tmp_path / "bad")
    for command in ("install", "verify"):
        line = refused(bundle(command, tmp_path / "bad"))
        assert f"{tmp_path / 'bad/student.onnx'} does not match its hash" in line
    assert not store.exists()
    assert bundle("verify", tiny.folder)[:2] == (
        0, f"whole: tiny ({tiny.sha256[:12]}) in {tiny.folder}\n",
    )  # fmt: skip


def test_the_list_for_people_and_for_programs(
    bundle: Command, tiny: Bundle, second: Bundle, store: Path
) -> None:
    assert bundle("list")[:2] == (
        0, f"no bundle in {store} is current: the built-in one runs\n",
    )  # fmt: skip
    assert json.loads(bundle("list", "--json")[1]) == []
    bundle("install", tiny.folder)
    bundle("install", second.folder)
    rows: list[dict[str, Any]] = json.loads(bundle("list", "--json")[1])
    by_name = {row["name"]: row for row in rows}
    assert set(by_name) == {"tiny", "second"}
    assert (by_name["second"]["current"], by_name["tiny"]["current"]) == (True, False)
    assert (by_name["second"]["previous"], by_name["tiny"]["previous"]) == (False, True)
    figures = {"split": "val", "protocol": "argmax", "n": 70, "accuracy": 0.9}
    assert by_name["tiny"]["figures"] == figures
    assert by_name["tiny"]["sha256"] == tiny.sha256
    lines = bundle("list")[1].splitlines()
    assert len(lines) == 2
    (current,) = [line for line in lines if line.startswith("current ")]
    assert second.sha256[:12] in current and "second" in current
    assert "accuracy 0.9000 (val argmax, n = 70)" in current


def test_verify_names_the_damaged_one_and_its_file(
    bundle: Command, tiny: Bundle, second: Bundle, store: Path
) -> None:
    bundle("install", tiny.folder)
    bundle("install", second.folder)
    code, out, _ = bundle("verify")
    assert code == 0 and f"2 installed in {store}, all whole" in out
    damaged = store / "bundles" / tiny.sha256
    tamper(damaged)
    done = bundle("verify")
    assert f"{damaged / 'student.onnx'} does not match its hash" in refused(done)
    assert f"whole: second ({second.sha256[:12]})" in done[1]
    assert "DAMAGED: " in done[1] and "DAMAGED: " in bundle("list")[1]
    bundle("install", tiny.folder)
    shutil.rmtree(damaged)
    assert f"no bundle at {damaged}" in refused(bundle("verify"))


def test_old_ones_go_if_that_is_asked_for(bundle: Command, tiny: Bundle, second: Bundle) -> None:
    bundle("install", tiny.folder)
    bundle("install", second.folder, "--keep", 1)
    assert [row["name"] for row in json.loads(bundle("list", "--json")[1])] == ["second"]
    assert "0 is less than 1" in refused(bundle("install", tiny.folder, "--keep", 0))
    assert "--keep" in refused(bundle("install", tiny.folder, "--keep", "all"))


def test_another_store_can_be_named(
    bundle: Command, tiny: Bundle, tmp_path: Path, store: Path
) -> None:
    other = tmp_path / "other"
    bundle("install", tiny.folder, "--store", other)
    assert not store.exists()
    assert "tiny" in bundle("list", "--store", other)[1]


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"FER_STORE": "/a", "STATE_DIRECTORY": "/b", "XDG_DATA_HOME": "/c"}, "/a"),
        ({"STATE_DIRECTORY": "/var/lib/fer-edge", "HOME": "/h"}, "/var/lib/fer-edge/bundles"),
        ({"STATE_DIRECTORY": "/b:/other", "HOME": "/h"}, "/b/bundles"),
        ({"XDG_DATA_HOME": "/c", "HOME": "/h"}, "/c/fer-edge"),
        ({"HOME": "/h"}, "/h/.local/share/fer-edge"),
        ({"HOME": "/h", "XDG_DATA_HOME": "relative", "FER_STORE": ""}, "/h/.local/share/fer-edge"),
    ],
)
def test_where_bundles_are_installed(environ: dict[str, str], folder: str) -> None:
    assert store_folder(environ) == Path(folder)


def test_a_box_whose_installed_bundle_is_damaged_runs_the_built_in_one_and_says_so(
    bundle: Command, tiny: Bundle, second: Bundle, store: Path, own_cache: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.WARNING, logger=bundles_module.log.name)
    monkeypatch.setattr(bundles_module, "DEFAULT_BUNDLE", tiny.folder)
    bundle("install", second.folder)
    profile = load_profile("demo", {"detector.kind": "haar"})
    engine = start_engine(profile)
    engine.chosen.session.close()
    assert (engine.bundle.sha256, engine.notes) == (second.sha256, ())
    tamper(store / "bundles" / second.sha256)
    engine = start_engine(profile)
    engine.chosen.session.close()
    assert engine.bundle.sha256 == tiny.sha256
    (note,) = engine.notes
    assert note.startswith("the built-in bundle runs in place of the installed one: ")
    assert "student.onnx does not match its hash" in note and note in caplog.text


def test_figures_are_never_measured_on_another_bundle_than_the_installed_one(
    bundle: Command, second: Bundle, store: Path, tmp_path: Path
) -> None:
    bundle("install", second.folder)
    tamper(store / "bundles" / second.sha256)
    manifest = tmp_path / "none.csv"
    manifest.write_text("path,label,split,source\nx.png,happy,val,x\n")
    (tmp_path / "x.png").touch()
    arguments = ["evaluate", "--manifest", str(manifest), "--json", str(tmp_path / "out.json")]
    done = run_command("fer-edge", lambda: main(arguments))
    assert done == 2 and not (tmp_path / "out.json").exists()


def test_the_built_in_bundle_is_no_part_of_the_store() -> None:
    """An update of the program brings its own; one that was installed stays as it was."""
    assert bundle_to_run(None).folder == DEFAULT_BUNDLE
