"""What a phase needs first: named in order, as commands, without what is there already."""

from pathlib import Path

import pytest

from trainer.cli import _run_phase
from trainer.config import TrainConfig
from trainer.phase_files import load_phase
from trainer.prerequisites import as_shell, missing_commands


def phase(name: str, folder: Path, *more: str) -> TrainConfig:
    places = [f"out='{folder}/runs'", f"distill.softlabels='{folder}/soft'", *more]
    return load_phase(name, [f"manifest='{folder}/manifest.csv'", *places])


def complete(folder: Path, *phases: str) -> None:
    for name in phases:
        bundle = folder / f"runs/{name}-seed1337/bundle/bundle.json"
        bundle.parent.mkdir(parents=True)
        bundle.touch()


def softlabels(folder: Path) -> None:
    (folder / "soft").mkdir()
    (folder / "soft/hash_manifest.json").touch()


def missing(name: str, folder: Path, *more: str) -> list[str]:
    made = missing_commands(phase(name, folder, *more), ["--seed", "1337"])
    return [command[1] if command[0] == "--phase" else command[0] for command in made]


def test_from_nothing_teachers_come_first_and_the_baseline_last(tmp_path: Path) -> None:
    assert missing("negl_tier1", tmp_path) == [
        "teacher_rn18", "teacher_b3", "teacher_cnxt", "ensemble", "softlabels",
        "student_ce", "study_kd",
    ]  # fmt: skip


def test_what_is_there_is_left_out(tmp_path: Path) -> None:
    softlabels(tmp_path)
    complete(tmp_path, "student_ce")
    assert missing("negl_tier1", tmp_path) == ["study_kd"]
    complete(tmp_path, "study_kd")
    assert missing("negl_tier1", tmp_path) == []


def test_what_a_finished_run_was_made_from_may_be_gone(tmp_path: Path) -> None:
    softlabels(tmp_path)
    complete(tmp_path, "study_kd")
    assert missing("negl_tier1", tmp_path, "start.checkpoint='x.safetensors'") == []


def test_a_half_made_run_is_named_again(tmp_path: Path) -> None:
    softlabels(tmp_path)
    (tmp_path / "runs/student_ce-seed1337/checkpoints").mkdir(parents=True)
    assert missing("student_kd", tmp_path) == ["student_ce"]


def test_a_start_of_ones_own_needs_no_run(tmp_path: Path) -> None:
    softlabels(tmp_path)
    assert missing("student_kd", tmp_path, "start.checkpoint='x.safetensors'") == []


def test_fewer_teachers_may_make_the_softlabels(tmp_path: Path) -> None:
    complete(tmp_path, "student_ce")
    made = missing("student_kd", tmp_path, 'distill.teachers=["teacher_rn18"]')
    assert made == ["teacher_rn18", "ensemble", "softlabels"]


@pytest.mark.parametrize("name", ["teacher_rn18", "student_ce"])
def test_a_phase_from_scratch_needs_nothing(tmp_path: Path, name: str) -> None:
    assert missing(name, tmp_path) == []


def test_on_request_they_are_made_first_in_order_with_the_flags_they_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    softlabels(tmp_path)
    made: list[list[str]] = []
    monkeypatch.setattr("trainer.cli.dispatch", made.append)
    trained: list[str] = []

    def train(
        config: TrainConfig, name: str | None, *, asked: list[str], export_best: bool
    ) -> Path:
        trained.append(config.phase)
        return config.out / "x" / "bundle"

    monkeypatch.setattr("trainer.run.train_phase", train)
    monkeypatch.setattr("trainer.cli._print_verdict", lambda config, run: None)
    places = ["--out", f"{tmp_path}/runs", "--softlabels", f"{tmp_path}/soft", "--seed", "7"]
    own = ["--epochs", "2", "--negl-ratio", "0.03"]
    _run_phase(["--phase", "negl_tier1", *places, *own, "--with-prerequisites"])
    assert [command[1] for command in made] == ["student_ce", "study_kd"]
    for command in made:
        assert command[command.index("--seed") + 1] == "7"
        assert "--epochs" not in command
    assert trained == ["negl_tier1"]


def test_commands_can_be_typed(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    ensemble = missing_commands(phase("student_kd", folder), [])[3]
    text = as_shell(ensemble)
    assert text.startswith("fer-trainer ensemble '")
    assert f"'{folder}/runs/teacher_b3-seed1337'" in text
