"""The matrix: order, failures, and starting again, with a stand-in for the trainer."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from contract.errors import UserError
from trainer.commands.matrix import main
from trainer.matrix import (
    Matrix,
    MatrixConfig,
    in_order,
    jobs_of,
    load_matrix,
    missing_prerequisites,
)

# Writes what it was asked to run, with the device it got, and a bundle at the end. A file named
# after the run makes it fail, or wait.
TRAINER = """\
import json, os, pathlib, sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = pathlib.Path(given["--out"])
name = f"{given['--phase']}-seed{given['--seed']}"
device = os.environ.get("CUDA_VISIBLE_DEVICES", "")
with (out / "asked.txt").open("a") as stream:
    stream.write(f"{name} {device}\\n")
if (out / f"{name}.fails").exists():
    sys.exit("it broke")
if (out / f"{name}.quits").exists():
    sys.exit(0)
while (out / f"{name}.waits").exists():
    time.sleep(0.02)
if (out / "slow").exists():
    time.sleep(0.3)
(out / name / "bundle").mkdir(parents=True, exist_ok=True)
(out / name / "bundle" / "bundle.json").write_text("{}")
"""
CHAIN = ["student_ce", "study_kd", "negl_tier1", "nl_kd", "nl_negl_kd"]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    file = tmp_path / "fake_trainer.py"
    file.write_text(TRAINER)
    return [sys.executable, "-I", str(file)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def config(out: Path, phases: Sequence[str] = ("nl_negl_kd",), **more: object) -> MatrixConfig:
    return MatrixConfig.model_validate({"phases": list(phases), "out": out, **more})


def asked(out: Path) -> list[str]:
    file = out / "asked.txt"
    return [line.split(" ")[0] for line in file.read_text().splitlines()] if file.exists() else []


def states(out: Path) -> dict[str, str]:
    stored = json.loads((out / "matrix_status.json").read_text())
    return {run["name"]: run["state"] for run in stored["runs"]}


def quiet(text: str) -> None:
    """Say nothing."""


def test_what_a_phase_needs_comes_before_it() -> None:
    order = list(in_order(["nl_negl_kd"]))
    assert sorted(order) == sorted(CHAIN)
    assert order[:2] == ["student_ce", "study_kd"]
    assert order[-1] == "nl_negl_kd"


def test_runs_that_start_from_named_weights_need_no_run_to_start_from(out: Path) -> None:
    weights = ("start.checkpoint=weights.safetensors",)
    jobs = jobs_of(MatrixConfig(phases=("study_kd", "nl_kd"), out=out, set=weights))
    assert [job.phase for job in jobs] == ["study_kd", "nl_kd"]
    assert [job.needs for job in jobs] == [[], ["study_kd-seed1337"]]


def test_every_seed_is_a_run_of_its_own(out: Path) -> None:
    matrix = config(
        out, seeds=(1, 2), set=["input.size=48"], phase_set={"nl_kd": ["nested.layers=2"]},
        manifest="m.csv", softlabels="soft",
    )  # fmt: skip
    jobs = {job.name: job for job in jobs_of(matrix)}
    assert len(jobs) == 2 * len(CHAIN)
    assert jobs["nl_kd-seed2"].arguments == [
        "--phase", "nl_kd", "--seed", "2", "--out", str(out), "--manifest", "m.csv",
        "--softlabels", "soft", "--set", "input.size=48", "--set", "nested.layers=2",
    ]  # fmt: skip
    assert jobs["nl_kd-seed2"].needs == ["student_ce-seed2", "study_kd-seed2"]
    assert list(jobs)[: len(CHAIN)] == [f"{phase}-seed1" for phase in in_order(["nl_negl_kd"])]


def test_all_runs_once_in_order(out: Path, command: list[str]) -> None:
    jobs = Matrix(config(out), command, say=quiet).run()
    assert asked(out) == [f"{phase}-seed1337" for phase in in_order(["nl_negl_kd"])]
    assert {job.state for job in jobs} == {"complete"} == set(states(out).values())
    Matrix(config(out), command, say=quiet).run()
    assert len(asked(out)) == len(CHAIN), "what is complete is not run again"


def test_a_failure_blocks_what_needs_it_and_nothing_else(out: Path, command: list[str]) -> None:
    (out / "nl_kd-seed1.fails").touch()
    said: list[str] = []
    Matrix(config(out, seeds=(1, 2)), command, say=said.append).run()
    found = states(out)
    assert found["nl_kd-seed1"] == "failed"
    assert found["nl_negl_kd-seed1"] == "blocked"
    assert [name for name, state in found.items() if state != "complete"] == [
        "nl_kd-seed1", "nl_negl_kd-seed1",
    ]  # fmt: skip
    assert "it broke" in (out / "logs" / "nl_kd-seed1.log").read_text()
    assert any("nl_kd-seed1: failed, exit code 1: it broke" in line for line in said)
    assert "nl_negl_kd-seed1: blocked by nl_kd-seed1" in said
    (out / "nl_kd-seed1.fails").unlink()
    before = len(asked(out))
    Matrix(config(out, seeds=(1, 2)), command, say=quiet).run()
    assert asked(out)[before:] == ["nl_kd-seed1", "nl_negl_kd-seed1"]


def test_a_run_that_ends_without_a_bundle_has_failed(out: Path, command: list[str]) -> None:
    (out / "study_kd-seed1337.quits").touch()
    Matrix(config(out, ["study_kd"]), command, say=quiet).run()
    assert states(out)["study_kd-seed1337"] == "failed"


def test_other_settings_are_not_taken_for_complete(out: Path, command: list[str]) -> None:
    """The trainer compares a folder with what it is asked, and says what differs."""
    Matrix(config(out, ["study_kd"]), command, say=quiet).run()
    Matrix(config(out, ["study_kd"], set=["input.size=56"]), command, say=quiet).run()
    assert asked(out) == 2 * ["student_ce-seed1337", "study_kd-seed1337"]


KILLED = """\
import sys
from pathlib import Path
from trainer.matrix import Matrix, MatrixConfig
config = MatrixConfig(phases=("nl_negl_kd",), out=Path(sys.argv[1]))
Matrix(config, [sys.executable, "-I", sys.argv[2]]).run()
"""


def wait_until(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def test_killed_half_way_it_does_only_what_is_left(out: Path, command: list[str]) -> None:
    waits = out / "negl_tier1-seed1337.waits"
    waits.touch()
    script = [sys.executable, "-c", KILLED, str(out), command[-1]]
    process = subprocess.Popen(script, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    wait_until(lambda: "negl_tier1-seed1337" in asked(out))
    wait_until(lambda: states(out)["negl_tier1-seed1337"] == "running")
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = [name for name, state in states(out).items() if state == "complete"]
    with pytest.raises(UserError, match="being trained by process"):
        Matrix(config(out), command, say=quiet)  # the run outlived its matrix
    waits.unlink()
    wait_until(lambda: (out / "negl_tier1-seed1337" / "bundle" / "bundle.json").is_file())
    wait_until(lambda: not os.path.exists(f"/proc/{_process_of(out)}/fd/0"))  # noqa: PTH110
    before = asked(out)
    jobs = Matrix(config(out), command, say=quiet).run()
    assert {job.state for job in jobs} == {"complete"}
    again = asked(out)[len(before) :]
    assert again == [f"{p}-seed1337" for p in in_order(["nl_negl_kd"])
                     if f"{p}-seed1337" not in [*done, "negl_tier1-seed1337"]]  # fmt: skip
    assert len(asked(out)) == len(CHAIN), "nothing was done twice"


def _process_of(out: Path) -> int:
    stored = json.loads((out / "matrix_status.json").read_text())
    return next(int(run["process"]) for run in stored["runs"] if run["state"] == "running")


def test_runs_are_spread_over_the_devices(out: Path, command: list[str]) -> None:
    """Of two devices each run has one, and both are used."""
    (out / "slow").touch()
    Matrix(config(out, ["student_ce"], seeds=(1, 2, 3, 4)), command, ["0", "3"], say=quiet).run()
    devices = [line.split(" ")[1] for line in (out / "asked.txt").read_text().splitlines()]
    assert sorted(set(devices)) == ["0", "3"]
    assert len(devices) == 4


def test_an_interrupt_ends_the_run_in_progress(
    out: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (out / "student_ce-seed1337.waits").touch()

    def interrupted(*_: object, **__: object) -> None:
        wait_until(lambda: asked(out))
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.matrix.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):  # and it ends, though the run would wait for ever
        Matrix(config(out), command, say=quiet).run()


def test_what_is_missing_is_known_beforehand(out: Path) -> None:
    assert missing_prerequisites("negl_tier1", 1, out) == ["student_ce", "study_kd"]
    (out / "student_ce-seed1" / "bundle").mkdir(parents=True)
    (out / "student_ce-seed1" / "bundle" / "bundle.json").touch()
    assert missing_prerequisites("negl_tier1", 1, out) == ["study_kd"]
    assert missing_prerequisites("student_ce", 2, out) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("phases = ['negl_tier9']", "no phase 'negl_tier9', did you mean 'negl_tier"),
        ("phases = []", "phases: "),
        ("phases = ['nl_kd']\nseed = [1]", "unknown key 'seed', did you mean 'seeds'"),
        ("phases = [", "not valid TOML"),
    ],
)
def test_a_matrix_that_cannot_be_meant_is_refused(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=complaint):
        load_matrix(str(file))


def test_an_unknown_matrix_is_named() -> None:
    with pytest.raises(UserError, match=r"two_core: no such matrix, did you mean 'two_cores'"):
        load_matrix("two_core")


def test_a_wrong_key_shows_before_the_first_run(out: Path, command: list[str]) -> None:
    with pytest.raises(UserError, match=r"unknown key 'optim\.epoch'"):
        Matrix(config(out, set=["optim.epoch=3"]), command)


def test_a_dry_run_prints_commands_and_runs_nothing(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["two_cores", "--dry-run", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(CHAIN)
    assert "fer-trainer --phase student_ce --seed 1337" in lines[0]
    assert list(out.iterdir()) == []


def test_the_command_ends_with_1_and_names_what_failed(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trainer itself, asked for a manifest that is not there."""
    file = out / "m.toml"
    file.write_text(f"phases = ['study_kd']\nout = '{out}'\nmanifest = '{out / 'none.csv'}'\n")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main([str(file), "--gpus", "-"]) == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    told = capsys.readouterr().err
    assert told == ("fer-trainer matrix: failed: student_ce-seed1337; blocked: study_kd-seed1337\n")
    assert "none.csv" in (out / "logs" / "student_ce-seed1337.log").read_text()
