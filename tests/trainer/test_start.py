"""Starting from trained weights: another phase's best epoch, or any checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from contract.errors import UserError
from tests.trainer.tiny import fer_trainer
from trainer.checkpoint import open_trained


@pytest.fixture
def run(finished: Path, phase_file: Path, tmp_path: Path) -> Path:
    """A finished run `tiny-seed1337` and phases beside it that may extend it; the folder."""
    shutil.copytree(finished, tmp_path / "runs/tiny-seed1337")
    text = phase_file.read_text().replace(str(phase_file.parent / "runs"), str(tmp_path / "runs"))
    (tmp_path / "tiny.toml").write_text(text)
    more = 'extends = "tiny"\nstart.phase = "tiny"\n[optim]\nepochs = 1\n'
    (tmp_path / "more.toml").write_text(more)
    return tmp_path


def test_a_phase_goes_on_from_the_best_epoch_of_another(run: Path) -> None:
    """Its epochs count from there, and its best score is its own."""
    still = ("--set", "optim.lr=1e-12", "--set", "optim.min_lr=0")
    assert fer_trainer("--phase", str(run / "more.toml"), *still) == 0
    first, more = (open_trained(run / f"runs/{n}-seed1337") for n in ("tiny", "more"))
    lines = (more.file.parent.parent / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0]
    assert more.about["start_sha256"] == first.sha256
    assert more.about["epoch"] == "0"
    names = dict(first.model.named_parameters())
    for name, value in more.model.named_parameters():
        torch.testing.assert_close(value, names[name], rtol=0, atol=1e-6)
    assert torch.equal(first.model.mean, more.model.mean)


def test_another_start_is_another_run(run: Path) -> None:
    assert fer_trainer("--phase", str(run / "more.toml")) == 0
    best = run / "runs/tiny-seed1337/checkpoints/best.safetensors"
    shutil.copy(run / "runs/more-seed1337/checkpoints/best.safetensors", best)
    with pytest.raises(UserError, match="holds a run with another start_sha256"):
        fer_trainer("--phase", str(run / "more.toml"))


def test_what_must_be_trained_first_is_said_with_the_command(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "runs/tiny-seed1337")
    with pytest.raises(UserError, match="phase more needs what is not there yet"):
        fer_trainer("--phase", str(run / "more.toml"), "--seed", "1337")
    assert capsys.readouterr().out == "fer-trainer --phase tiny --seed 1337\n"


def test_finetuning_takes_the_network_from_the_checkpoint(run: Path, phase_file: Path) -> None:
    arguments = [
        "--phase", "finetune", "--manifest", str(phase_file.parent / "manifest.csv"),
        "--out", str(run / "runs"), "--epochs", "1", "--batch-size", "32",
    ]  # fmt: skip
    with pytest.raises(UserError, match="needs weights to start from: --start-from"):
        fer_trainer(*arguments)
    assert fer_trainer(*arguments, "--start-from", str(run / "runs/tiny-seed1337")) == 0
    tuned = open_trained(run / "runs/finetune-seed1337")
    assert tuned.config.model.backbone == "test_resnet"
    assert tuned.config.input.size == 32
    assert (run / "runs/finetune-seed1337/bundle/bundle.json").is_file()


@pytest.mark.parametrize("given", ["nothing", "history.jsonl", "checkpoints/last.safetensors"])
def test_a_start_that_is_no_checkpoint_is_refused(run: Path, given: str) -> None:
    start = run / "runs/tiny-seed1337" / given
    with pytest.raises(UserError, match=r"nothing|history|last"):
        fer_trainer("--phase", str(run / "more.toml"), "--start-from", str(start))


def test_a_mistake_can_be_mended_under_the_same_name(run: Path) -> None:
    """A run that was refused before it trained does not keep its folder."""
    arguments = ["--phase", str(run / "tiny.toml"), "--name", "again", "--epochs", "1"]
    with pytest.raises(UserError, match="timm has no 'test_resnat'"):
        fer_trainer(*arguments, "--set", "model.backbone=test_resnat")
    assert fer_trainer(*arguments) == 0
    assert open_trained(run / "runs/again").config.model.backbone == "test_resnet"
    with pytest.raises(UserError, match="holds a run with another model"):
        fer_trainer(*arguments, "--set", "model.dropout=0.5")


def test_a_size_that_the_weights_do_not_have_is_not_ignored(run: Path) -> None:
    with pytest.raises(UserError, match="sees 32 px; leave the size out, or train tiny at that"):
        fer_trainer("--phase", str(run / "more.toml"), "--image-size", "48")


def test_no_key_that_the_weights_overrule_is_ignored(run: Path) -> None:
    start = ["--phase", str(run / "more.toml"), "--start-from", str(run / "runs/tiny-seed1337")]
    with pytest.raises(UserError, match=r"input.size = 48: .*tiny-seed1337.* has 32; leave"):
        fer_trainer(*start, "--image-size", "48")
    with pytest.raises(UserError, match=r"input = .* has .*; leave input out"):
        fer_trainer(*start, "--set", "input={size=48}")
    with pytest.raises(UserError, match=r"model.dropout = 0.5: .* leave model.dropout out"):
        fer_trainer(*start, "--set", "model.dropout=0.5")


def test_weights_go_on_with_faces_prepared_otherwise(run: Path) -> None:
    start = ["--phase", str(run / "more.toml"), "--start-from", str(run / "runs/tiny-seed1337")]
    sets = ["--set", "input.brighten_to=90", "--set", "input.crop.yunet.scale=1.1"]
    assert fer_trainer(*start, *sets, "--name", "brighter", "--epochs", "1") == 0
    made = open_trained(run / "runs/brighter").config.input
    assert (made.size, made.brighten_to, made.crop["yunet"].scale) == (32, 90, 1.1)


def test_a_margin_may_be_put_on_weights_without_one(run: Path) -> None:
    """The network and the classes' directions are kept; only the way of classifying is new."""
    start = ["--phase", str(run / "more.toml"), "--start-from", str(run / "runs/tiny-seed1337")]
    still = ["--set", "optim.lr=1e-12", "--set", "optim.min_lr=0"]
    margin = ["--set", "model.arcface.margin=0.2", "--set", "model.arcface.scale=16"]
    assert fer_trainer(*start, *still, *margin, "--name", "margin") == 0
    before, after = (open_trained(run / f"runs/{n}") for n in ("tiny-seed1337", "margin"))
    assert after.config.model.arcface is not None
    assert (after.config.model.arcface.margin, after.config.model.arcface.scale) == (0.2, 16)
    names = dict(before.model.network.named_parameters())
    for name, value in after.model.network.named_parameters():
        torch.testing.assert_close(value, names[name], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        after.model.classifier.weight, before.model.classifier.weight, rtol=0, atol=1e-6
    )
    faces = torch.rand(4, 1, 32, 32) * 255
    assert (after.model(faces).abs() <= 16 + 1e-4).all()
    with pytest.raises(UserError, match=r"model.arcface.margin = 0.5: .* has 0.2; leave"):
        fer_trainer(
            "--phase", str(run / "more.toml"), "--start-from", str(run / "runs/margin"),
            "--set", "model.arcface.margin=0.5",
        )  # fmt: skip
