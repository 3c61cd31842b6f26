"""Soups: the mean of weights, chosen on calib alone, and a run like any other."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.bundle import open_bundle
from contract.errors import UserError
from contract.faces import CropGeometry
from contract.manifest import read_manifest
from tests.trainer.teachers import COLOUR, GREY, teacher, two_sources
from trainer.checkpoint import open_trained, save_weights
from trainer.commands.soup import main
from trainer.compare import open_run
from trainer.data.cache import packed_faces
from trainer.predict import predict
from trainer.soup import MOST_SERVINGS, mix, search


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, a run `plain`, and `near`: the same weights with a little noise. Read only."""
    folder = tmp_path_factory.mktemp("soup")
    manifest = two_sources(folder)
    run = teacher(manifest, "plain", GREY)
    trained = open_trained(run)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trained.model.parameters():
            weight.add_(0.2 * weight.std().nan_to_num() * torch.randn_like(weight))
    save_weights(folder / "runs/near/checkpoints/best.safetensors", trained.model, trained.about)
    teacher(manifest, "cosine", COLOUR, arcface=True)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def soup(
    folder: Path, *flags: str, runs: tuple[str, ...] = ("plain", "near"), out: str = "soup"
) -> Path:
    """Make one of `runs` in a run folder, which is returned."""
    paths = [str(folder / "runs" / run) for run in runs]
    run = folder / "runs" / out
    assert (
        main([*paths, "--manifest", str(folder / "manifest.csv"), "--out", str(run), *flags]) == 0
    )
    return run


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=4).filter(lambda w: sum(w) > 1e-6),
    st.integers(0, 2**32 - 1),
)
def test_a_mix_is_numpys_average(weights: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(weights), 3, 2)).astype(np.float32)
    states = [{"w": torch.from_numpy(each), "n": torch.tensor(7)} for each in values]
    mixed = mix(states, weights)
    expected = np.average(values.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(mixed["w"].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert mixed["w"].dtype == torch.float32
    assert mixed["n"] == 7


def test_a_checkpoint_without_a_share_has_no_say_not_even_nan() -> None:
    states = [{"w": torch.tensor([1.0])}, {"w": torch.tensor([math.nan])}]
    assert mix(states, [2, 0])["w"] == 1


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=4), st.floats(-3, 3))
def test_the_search_only_ever_gets_better_and_ends(points: list[float], goal: float) -> None:
    """One weight per checkpoint, and a loss that is how far their mean is from a goal."""

    def loss(counts: tuple[int, ...]) -> float:
        return abs(float(np.average(points, weights=counts)) - goal)

    steps = search(len(points), loss)
    losses = [step.nll for step in steps]
    assert losses[0] == min(abs(point - goal) for point in points)
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)
    assert [sum(step.counts) for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) <= MOST_SERVINGS


def test_the_search_takes_one_twice_where_that_is_best() -> None:
    steps = search(2, lambda counts: abs(counts[1] / sum(counts) - 1 / 3))
    assert steps[-1].counts == (2, 1)


def test_a_soup_of_equal_shares_answers_as_the_mean_of_the_weights(copied: Path) -> None:
    out = soup(copied, "--weights", "equal")
    states = [open_trained(copied / "runs" / name).model.state_dict() for name in ("plain", "near")]
    model = open_trained(copied / "runs/plain").model
    model.load_state_dict(mix(states, [1, 1]))
    manifest = read_manifest(copied / "manifest.csv")
    faces = torch.from_numpy(packed_faces(manifest, GREY))
    found = predict(open_trained(out).model, faces)
    torch.testing.assert_close(found, predict(model, faces), atol=1e-5, rtol=1e-5)


def test_a_soup_is_a_run_that_says_what_is_in_it(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = soup(copied)
    said = capsys.readouterr().out
    assert "calib nll" in said
    run = open_run(out, "val")
    assert len(run.predictions) == 35
    parts = json.loads(open_trained(out).about["soup"])
    assert sum(part["share"] for part in parts) == pytest.approx(1, abs=1e-3)
    bundle = open_bundle(out / "bundle")
    assert bundle.info.name == "soup"
    assert bundle.info.provenance.detail["soup"] == parts
    assert parts[0]["name"] in (out / "bundle/model_card.md").read_text()
    assert parts[0]["sha256"] == open_trained(copied / "runs" / parts[0]["name"]).sha256


def test_val_has_no_say_in_the_shares(copied: Path) -> None:
    shares = []
    for flip in (False, True):
        if flip:
            file = copied / "manifest.csv"
            rows = file.read_text().splitlines()
            names = {"happy": "sad", "sad": "happy"}
            swap = [
                line if ",val," not in line else ",".join(names.get(c, c) for c in line.split(","))
                for line in rows
            ]
            assert swap != rows
            file.write_text("\n".join(swap) + "\n")
            shutil.rmtree(copied / "runs/soup")
        shares.append(json.loads(open_trained(soup(copied)).about["soup"]))
    assert shares[0] == shares[1]


def test_networks_that_differ_have_no_mean(copied: Path) -> None:
    with pytest.raises(UserError, match=r"another (network|input) than"):
        soup(copied, runs=("plain", "cosine"))
    assert not (copied / "runs/soup").exists()


def test_a_crop_that_was_measured_anew_is_no_other_input(copied: Path) -> None:
    near = open_trained(copied / "runs/near")
    face = near.config.input.model_copy(
        update={"crop": {"yunet": CropGeometry(scale=1.0, shift_x=0.01, shift_y=0.0)}}
    )
    config = near.config.model_copy(update={"input": face})
    save_weights(near.file, near.model, {**near.about, "config": config.model_dump_json()})
    assert soup(copied, "--weights", "equal").is_dir()


def test_faces_can_be_prepared_otherwise_than_in_training(copied: Path) -> None:
    made = soup(copied, "--weights", "equal", "--set", "input.brighten_to=200")
    assert open_trained(made).config.input.brighten_to == 200
    assert open_bundle(made / "bundle").info.input.brighten_to == 200
    plain = soup(copied, "--weights", "equal", "--set", "input.brighten_to=0", out="plain-soup")
    figures = [
        json.loads((run / "metrics.json").read_text())["val"]["raw"] for run in (made, plain)
    ]
    assert figures[0]["nll"] != figures[1]["nll"]  # they were made with faces as they are served


def test_a_soup_of_a_soup_says_what_that_was_mixed_of(copied: Path) -> None:
    soup(copied, "--weights", "3,1")
    again = soup(copied, "--weights", "1,1", runs=("soup", "near"), out="again")
    parts = json.loads((again / "config.json").read_text())["soup"]
    assert [(part["name"], part["share"]) for part in parts] == [
        ("plain", 0.375), ("near", 0.125), ("near", 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["input.size=16", "input=1", "optim.lr=1", "input.brighten=1"])
def test_nothing_else_of_a_soup_can_be_set(copied: Path, key: str) -> None:
    with pytest.raises(UserError, match=r"of a soup only these can be set: .*input\.brighten_to"):
        soup(copied, "--set", key)


def test_a_run_that_is_there_is_kept(copied: Path) -> None:
    shutil.copytree(copied / "runs/near", copied / "runs/soup")
    before = open_trained(copied / "runs/soup").sha256
    with pytest.raises(UserError, match="holds a run already"):
        soup(copied)
    assert open_trained(copied / "runs/soup").sha256 == before


@pytest.mark.parametrize("weights", ["1", "1,2,3", "1,-1", "0,0", "a,b", "nan,1", "inf,1"])
def test_weights_that_make_no_soup(copied: Path, weights: str) -> None:
    with pytest.raises(UserError, match="--weights"):
        soup(copied, "--weights", weights)


def test_a_manifest_without_calib_rows(copied: Path) -> None:
    file = copied / "manifest.csv"
    file.write_text(file.read_text().replace(",calib,", ",train,"))
    with pytest.raises(UserError, match="no rows of split 'calib'"):
        soup(copied)
