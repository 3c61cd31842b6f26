"""Ensembles: fused as NumPy would, weighed on calib alone, and no longer valid when changed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from contract import metrics
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.faces import prepare_face, read_image
from contract.manifest import read_manifest, write_manifest
from tests.trainer.teachers import GREY, ROWS, teacher, two_sources, two_teachers
from trainer.checkpoint import open_trained
from trainer.commands.ensemble import main
from trainer.compare import open_run
from trainer.ensemble import METRICS_FILE, EnsembleInfo, open_ensemble
from trainer.fusion import Fusion, fuse, search_weights
from trainer.predictions import load_predictions

Floats = NDArray[np.float64]
FUSIONS: tuple[Fusion, ...] = ("logit", "probability")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, two teachers in `runs` and their ensemble in `both`. Read only."""
    folder = tmp_path_factory.mktemp("ensemble")
    two_teachers(two_sources(folder))
    assert ensemble(folder, "both") == 0
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change, at another place."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def ensemble(
    folder: Path, name: str, *flags: str, runs: tuple[str, ...] = ("plain", "cosine")
) -> int:
    paths = [str(folder / "runs" / run) for run in runs]
    places = ["--manifest", str(folder / "manifest.csv"), "--out", str(folder / name)]
    return main([*paths, *places, "--device", "cpu", *flags])


def info_of(folder: Path) -> EnsembleInfo:
    return EnsembleInfo.model_validate_json((folder / "ensemble.json").read_text())


def random_teachers(seed: int, count: int, rows: int = 50) -> Floats:
    return np.random.default_rng(seed).normal(0, 3, (count, rows, 7))


def mixed(logits: Floats, weights: Floats, fusion: Fusion) -> Floats:
    """The ensemble's logits, in NumPy."""
    shares = weights[:, None, None]
    if fusion == "logit":
        return np.asarray((shares * logits).sum(0))
    return np.asarray(np.log((shares * softmax(logits, axis=2)).sum(0)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from(FUSIONS))
def test_fusion_is_numpys(seed: int, count: int, fusion: Fusion) -> None:
    logits = random_teachers(seed, count)
    weights = np.random.default_rng(seed).dirichlet(np.ones(count))
    weights[0] = 0 if count > 1 else 1  # a teacher without weight has no say, not even NaN
    weights /= weights.sum()
    found = fuse(torch.from_numpy(logits), weights.tolist(), fusion)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, mixed(logits, weights, fusion), rtol=1e-5, atol=1e-5)


def test_fusion_by_hand() -> None:
    """A sure teacher and an undecided one: logits are averaged in the log, probabilities not."""
    sure, undecided = np.log([[8, 1, 1, 1, 1, 1, 1]]), np.zeros((1, 7))
    both = torch.from_numpy(np.stack([sure, undecided]))
    logit, probability = (softmax(fuse(both, [0.5, 0.5], f).numpy(), axis=1) for f in FUSIONS)
    assert logit[0, 0] == pytest.approx(8**0.5 / (8**0.5 + 6), abs=1e-6)
    assert probability[0, 0] == pytest.approx((8 / 14 + 1 / 7) / 2, abs=1e-6)


def test_a_confident_mistake_of_all_teachers_stays_a_finite_logit() -> None:
    logits = torch.zeros(2, 1, 7)
    logits[:, 0, 0] = 2000.0
    assert torch.isfinite(fuse(logits, [0.5, 0.5], "probability")).all()


def labels_from(p: Floats, seed: int) -> NDArray[np.int64]:
    """A label for each row, drawn from its probabilities."""
    draws = np.random.default_rng(seed).random((len(p), 1))
    return np.asarray((draws > p.cumsum(axis=1)).sum(axis=1).clip(max=6), np.int64)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("planted", [(0.6, 0.3, 0.1), (0.25, 0.75, 0.0)])
def test_the_search_finds_the_weights_that_made_the_labels(
    fusion: Fusion, planted: tuple[float, ...]
) -> None:
    logits = random_teachers(1, 3, 20_000) / 2
    labels = labels_from(softmax(mixed(logits, np.array(planted), fusion), axis=1), 2)
    found = search_weights(torch.from_numpy(logits), torch.from_numpy(labels), fusion)
    assert found == pytest.approx(planted, abs=0.03)
    assert sum(found) == pytest.approx(1, abs=1e-12)


def best_nll(logits: Floats, weights: Floats, labels: NDArray[np.int64], fusion: Fusion) -> float:
    """The criterion of the search: fused logits count at the temperature that suits them."""
    scores, rows = mixed(logits, weights, fusion), np.arange(len(labels))

    def loss(log_t: float) -> float:
        return float(-log_softmax(scores / np.exp(log_t), axis=1)[rows, labels].mean())

    if fusion == "probability":
        return loss(0.0)
    return float(minimize_scalar(loss, bounds=(-5, 5), method="bounded").fun)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("seed", range(3))
def test_no_weights_on_a_grid_are_better_than_those_found(fusion: Fusion, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 7, 300)
    skill = rng.uniform(0, 2, (3, 1, 1))
    logits = rng.normal(0, 1, (3, 300, 7)) * rng.uniform(0.5, 3, (3, 1, 1))
    logits = logits + skill * np.eye(7)[labels]
    found = search_weights(torch.from_numpy(logits), torch.from_numpy(labels), fusion)
    grid = [
        np.array([a, b, 20 - a - b]) / 20 for a in range(21) for b in range(21 - a)
    ]  # fmt: skip
    least = min(best_nll(logits, weights, labels, fusion) for weights in grid)
    assert best_nll(logits, np.array(found), labels, fusion) <= least + 1e-5


@pytest.mark.parametrize("fusion", FUSIONS)
def test_teachers_who_are_always_right_get_weights_too(fusion: Fusion) -> None:
    """NLL has no minimum there; the search has to end all the same."""
    labels = torch.arange(70) % 7
    right = 30.0 * torch.nn.functional.one_hot(labels, 7)
    found = search_weights(torch.stack([right, 2 * right, right]), labels, fusion)
    assert min(found) >= 0
    assert sum(found) == pytest.approx(1)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_order_of_the_teachers_does_not_matter(fusion: Fusion) -> None:
    logits = random_teachers(5, 3, 400)
    labels = torch.from_numpy(labels_from(softmax(logits[0] / 3, axis=1), 3))
    one = search_weights(torch.from_numpy(logits), labels, fusion)
    other = search_weights(torch.from_numpy(logits[::-1].copy()), labels, fusion)
    assert one == pytest.approx(other[::-1], abs=1e-3)


def asked(folder: Path, run: str) -> Floats:
    """A teacher's logits on the manifest's calib and val images, prepared as it wants them."""
    trained, manifest = open_trained(folder / "runs" / run), read_manifest(folder / "manifest.csv")
    faces = []
    for row in manifest.rows:
        if row.split in ("calib", "val"):
            image = read_image(manifest.path(row))
            assert image is not None
            faces.append(prepare_face(image, trained.config.input))
    with torch.inference_mode():
        given = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float()
        return np.asarray(trained.model(given).double().numpy())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_predictions_are_the_teachers_fused(copied: Path, fusion: Fusion) -> None:
    """Each sees its own size and colours, is divided by its own temperature, then weighed."""
    assert ensemble(copied, "new", "--fusion", fusion) == 0
    info, said = info_of(copied / "new"), load_predictions(copied / "new/predictions.npz")
    own = [asked(copied, run) for run in ("plain", "cosine")]
    calib = np.array([split == "calib" for split in said.splits])
    for logits, member in zip(own, info.teachers, strict=True):
        fitted = metrics.fit_temperature(logits[calib], said.labels[calib])
        assert member.temperature == pytest.approx(fitted, rel=1e-3)
    scaled = np.stack([z / t.temperature for z, t in zip(own, info.teachers, strict=True)])
    weights = np.array([member.weight for member in info.teachers])
    np.testing.assert_allclose(said.logits, mixed(scaled, weights, fusion), atol=1e-3)
    fitted = metrics.fit_temperature(said.logits[calib], said.labels[calib])
    assert said.temperature == info.temperature == pytest.approx(fitted)
    rows = [r for r in read_manifest(copied / "manifest.csv").rows if r.split != "train"]
    assert said.paths == [row.path for row in rows]
    assert [EXPRESSIONS[label] for label in said.labels] == [row.label for row in rows]


def test_an_ensemble_is_compared_like_a_run(made: Path) -> None:
    assert len(open_run(made / "both", "val").predictions) == ROWS["val"]


def test_every_figure_says_whose_where_and_of_how_many(made: Path) -> None:
    found = json.loads((made / "both" / METRICS_FILE).read_text())
    said = load_predictions(made / "both/predictions.npz")
    assert found["manifest_sha256"] == said.manifest_sha256
    rows = {(row["model"], row["split"], row["source"]): row for row in found["rows"]}
    assert set(rows) == {
        (model, split, source)
        for model in ("plain", "cosine", "ensemble")
        for split in ("calib", "val")
        for source in ("all", "a", "b")
    }
    chosen = np.array(
        [pair == ("val", "b") for pair in zip(said.splits, said.sources, strict=True)]
    )
    figures = rows["ensemble", "val", "b"]
    assert figures["n"] == figures["raw"]["n"] == chosen.sum()
    assert figures["protocol"] == "gratings"
    for kind, temperature in (("raw", 1.0), ("scaled", said.temperature)):
        p = softmax(said.logits[chosen].astype(np.float64) / temperature, axis=1)
        of_label = p[np.arange(len(p)), said.labels[chosen]]
        assert figures[kind]["nll"] == pytest.approx(-np.log(of_label).mean())
        assert figures[kind]["accuracy"] == np.mean(p.argmax(1) == said.labels[chosen])


def test_the_search_made_calib_no_worse_than_the_best_teacher(made: Path) -> None:
    rows = json.loads((made / "both" / METRICS_FILE).read_text())["rows"]
    nll = {
        row["model"]: row["scaled"]["nll"]
        for row in rows
        if (row["split"], row["source"]) == ("calib", "all")
    }
    assert nll["ensemble"] <= min(nll["plain"], nll["cosine"]) + 1e-4


def test_val_and_train_have_no_say_in_weights_and_temperatures(copied: Path) -> None:
    """With every label of theirs wrong, what is fitted stays the same."""
    before, file = info_of(copied / "both"), copied / "manifest.csv"
    rows = [
        row if row.split == "calib" else replace(row, label="fear")
        for row in read_manifest(file).rows
    ]
    write_manifest(file, rows)
    assert ensemble(copied, "other") == 0
    after = info_of(copied / "other")
    assert after.manifest_sha256 != before.manifest_sha256
    assert after.temperature == before.temperature
    for one, other in zip(before.teachers, after.teachers, strict=True):
        assert (one.weight, one.temperature) == (other.weight, other.temperature)


def test_the_same_again_gives_the_same_files(copied: Path) -> None:
    files = sorted((copied / "both").iterdir())
    before = [file.read_bytes() for file in files]
    assert len(files) == 3
    assert ensemble(copied, "both") == 0
    assert [file.read_bytes() for file in files] == before


def test_temperatures_and_weights_as_given(copied: Path) -> None:
    assert ensemble(copied, "new", "--temperatures", "none", "--weights", "3,1") == 0
    teachers = info_of(copied / "new").teachers
    assert [(t.weight, t.temperature) for t in teachers] == [(0.75, 1.0), (0.25, 1.0)]
    expected = 0.75 * asked(copied, "plain") + 0.25 * asked(copied, "cosine")
    said = load_predictions(copied / "new/predictions.npz").logits
    np.testing.assert_allclose(said, expected, atol=1e-3)
    assert ensemble(copied, "new", "--weights", "equal") == 0
    assert [t.weight for t in info_of(copied / "new").teachers] == [0.5, 0.5]


def test_one_teacher_is_an_ensemble_of_its_own(copied: Path) -> None:
    assert ensemble(copied, "new", runs=("plain",)) == 0
    (only,) = info_of(copied / "new").teachers
    assert only.weight == 1.0
    said = load_predictions(copied / "new/predictions.npz").logits
    np.testing.assert_allclose(said, asked(copied, "plain") / only.temperature, atol=1e-3)


def test_teachers_of_one_name_are_told_apart(copied: Path) -> None:
    shutil.copytree(copied / "runs/cosine", copied / "runs/again/plain")
    assert ensemble(copied, "new", runs=("plain", "again/plain")) == 0
    assert [t.name for t in info_of(copied / "new").teachers] == ["plain (1)", "plain (2)"]


def test_a_teacher_from_another_manifest_is_pointed_out(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ensemble(copied, "both") == 0
    assert "note" not in capsys.readouterr().out
    rows = read_manifest(copied / "manifest.csv").rows
    write_manifest(copied / "manifest.csv", rows[1:])
    assert ensemble(copied, "both") == 0
    assert "note: plain was trained on another manifest" in capsys.readouterr().out


REFUSED = {
    "too few weights": (["--weights", "1"], "1 for 2 teachers"),
    "negative weights": (["--weights", "2,-1"], "0 or more"),
    "no weight at all": (["--weights", "0,0"], "not all 0"),
    "weights that are words": (["--weights", "many"], "use searched, equal, or numbers"),
    "weights that are not numbers": (["--weights", "nan,1"], "0 or more"),
    "an unknown fusion": (["--fusion", "vote"], "invalid choice: 'vote'"),
}


@pytest.mark.parametrize(("flags", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_refused(made: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ensemble(made, "refused", *flags)
    assert not (made / "refused").exists()


def test_teachers_that_are_not_there_or_there_twice_are_refused(made: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint at"):
        ensemble(made, "refused", runs=("plain", "none"))
    with pytest.raises(UserError, match=r"the same weights as .*name each once"):
        ensemble(made, "refused", runs=("plain", "cosine", "plain"))
    assert not (made / "refused").exists()


def test_a_run_is_not_overwritten(copied: Path) -> None:
    with pytest.raises(UserError, match="exists and is not an ensemble"):
        ensemble(copied, "runs/plain")


def test_a_manifest_without_calib_is_refused(copied: Path) -> None:
    rows = [row for row in read_manifest(copied / "manifest.csv").rows if row.split != "calib"]
    write_manifest(copied / "manifest.csv", rows)
    with pytest.raises(UserError, match=r"manifest\.csv: no rows of split 'calib'"):
        ensemble(copied, "new")


def test_teachers_of_different_protocols_need_one_named(copied: Path) -> None:
    teacher(copied / "manifest.csv", "strict", GREY, protocol="strict")
    with pytest.raises(UserError, match=r"different ways \(gratings, strict\).*--protocol"):
        ensemble(copied, "new", runs=("plain", "strict"))
    assert ensemble(copied, "new", "--protocol", "strict", runs=("plain", "strict")) == 0
    assert info_of(copied / "new").protocol == "strict"


def test_an_ensemble_opens_wherever_it_and_its_teachers_have_moved(copied: Path) -> None:
    opened = open_ensemble(copied / "both")
    said = load_predictions(copied / "both/predictions.npz").logits
    logits = [torch.from_numpy(asked(copied, run)).float() for run in ("plain", "cosine")]
    np.testing.assert_allclose(opened.fuse(logits), said, atol=1e-3)
    assert open_ensemble(copied / "both/ensemble.json").sha256 == opened.sha256


def edit(folder: Path, **changes: object) -> None:
    file = folder / "both/ensemble.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_changed_or_missing_teacher_is_named(copied: Path) -> None:
    other = teacher(copied / "manifest.csv", "other", GREY) / "checkpoints/best.safetensors"
    file = copied / "runs/plain/checkpoints/best.safetensors"
    shutil.copyfile(other, file)
    with pytest.raises(UserError, match=r"plain.*best\.safetensors: has changed since"):
        open_ensemble(copied / "both")
    file.unlink()
    with pytest.raises(UserError, match=r"no checkpoint at .*plain.*best\.safetensors"):
        open_ensemble(copied / "both")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this program reads 1"),
        ({"expressions": list(EXPRESSIONS[::-1])}, "in the order 'neutral"),
        ({"fussion": "logit"}, "unknown key 'fussion', did you mean 'fusion'"),
        ({"temperature": 0}, "temperature: input should be greater than 0"),
    ],
)
def test_a_record_that_cannot_be_right_is_refused(
    copied: Path, changes: dict[str, object], message: str
) -> None:
    edit(copied, **changes)
    with pytest.raises(UserError, match=message):
        open_ensemble(copied / "both")


def test_no_ensemble_or_a_damaged_one_is_one_line(copied: Path) -> None:
    with pytest.raises(UserError, match=r"no ensemble at .*make one with fer-trainer ensemble"):
        open_ensemble(copied / "nowhere")
    (copied / "both/ensemble.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        open_ensemble(copied / "both")
