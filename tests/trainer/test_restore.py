"""A bundle back into weights: the same answers, layers that normalise, training that goes on."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from contract.bundle import Bundle, open_bundle
from contract.errors import UserError
from contract.files import sha256_file
from contract.manifest import read_manifest
from edge.bundles import DEFAULT_BUNDLE
from tests.trainer.tiny import fer_trainer, make_manifest
from trainer.checkpoint import open_trained
from trainer.commands.restore import main
from trainer.data.cache import packed_faces
from trainer.predict import pixels, predict
from trainer.restore import restore as put_back


def restore(bundle: Path, manifest: Path, out: Path) -> Path:
    """Run the command; returns `out`."""
    assert main([str(bundle), "--manifest", str(manifest), "--out", str(out)]) == 0
    return out


def rewrite(bundle: Path, file: str, content: bytes) -> None:
    """Another file under a bundle's name, with the hashes that make it whole."""
    old = sha256_file(bundle / file)
    (bundle / file).write_bytes(content)
    for name in ("bundle.json", "SHA256SUMS"):
        before = sha256_file(bundle / "bundle.json")
        text = (bundle / name).read_text().replace(old, sha256_file(bundle / file))
        (bundle / name).write_text(text)
        sums = bundle / "SHA256SUMS"
        sums.write_text(sums.read_text().replace(before, sha256_file(bundle / "bundle.json")))


def edit(bundle: Path, change: str) -> Bundle:
    """Change a bundle's graph in some way and open it."""
    graph = onnx.load(str(bundle / "student.onnx"))
    for index, value in enumerate(graph.graph.initializer):
        numbers = numpy_helper.to_array(value)
        if numbers.ndim != 4 or numbers.shape[-1] == 1:
            continue
        other = numbers[::-1] if change == "values" else numbers[..., :1, :1]
        made = numpy_helper.from_array(other.copy(), value.name)
        graph.graph.initializer[index].CopyFrom(made)
    rewrite(bundle, "student.onnx", graph.SerializeToString())
    return open_bundle(bundle)


@pytest.fixture(scope="module")
def restored(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run's bundle, restored. Read only."""
    manifest = finished.parent.parent / "manifest.csv"
    out = tmp_path_factory.mktemp("restored") / "again"
    return restore(finished / "bundle", manifest, out)


def test_it_answers_as_the_network_that_was_exported(finished: Path, restored: Path) -> None:
    run = open_trained(finished)
    faces = packed_faces(read_manifest(finished.parent.parent / "manifest.csv"), run.config.input)
    before, after = (
        predict(open_trained(folder).model, torch.from_numpy(faces))
        for folder in (finished, restored)
    )
    torch.testing.assert_close(after, before, rtol=1e-3, atol=2e-3)


def test_batch_norms_know_what_they_will_see(finished: Path, restored: Path) -> None:
    """In training mode a batch is normalised by itself: of the same faces, to the same answers."""
    trained = open_trained(restored)
    manifest = read_manifest(finished.parent.parent / "manifest.csv")
    train = [row.split == "train" for row in manifest.rows]
    faces = torch.from_numpy(packed_faces(manifest, trained.config.input)[train])
    model = trained.model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.network.drop_rate = 0.0
    expected = predict(model, faces)
    with torch.no_grad():
        found = model.train()(pixels(faces, "cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(float((norm.running_mean != 0).float().mean()) > 0.9 for norm in norms)


def test_training_goes_on_from_it(finished: Path, restored: Path, tmp_path: Path) -> None:
    arguments = [
        "--phase", "finetune", "--manifest", str(finished.parent.parent / "manifest.csv"),
        "--out", str(tmp_path), "--epochs", "1", "--batch-size", "32",
    ]  # fmt: skip
    assert fer_trainer(*arguments, "--start-from", str(restored)) == 0
    tuned = open_trained(tmp_path / "finetune-seed1337")
    assert tuned.about["start_sha256"] == open_trained(restored).sha256
    assert (tmp_path / "finetune-seed1337/bundle/bundle.json").is_file()


def test_it_says_where_it_comes_from(
    finished: Path, restored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = json.loads(open_trained(restored).about["restored"])
    assert about == {"bundle": "whole", "sha256": open_bundle(finished / "bundle").sha256}
    assert fer_trainer("inspect", str(restored)) == 0
    assert about["sha256"] in capsys.readouterr().out


def test_the_built_in_model_can_be_restored(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, {"train": 256})
    out = restore(DEFAULT_BUNDLE, manifest, tmp_path / "builtin")
    assert open_trained(out).config.model.backbone == "mobilenetv3_large_100"


def test_too_few_faces(finished: Path, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, {"train": 40, "calib": 300})
    with pytest.raises(UserError, match="40 training faces are too few"):
        restore(finished / "bundle", manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["values", "shapes"])
def test_a_graph_of_something_else(copied: Path, finished: Path, change: str) -> None:
    edit(copied / "bundle", change)
    with pytest.raises(UserError, match=r"student\.onnx: is not a graph that fer-trainer exported"):
        restore(copied / "bundle", finished.parent.parent / "manifest.csv", copied / "out")
    assert not (copied / "out").exists()


@pytest.mark.parametrize(
    ("find", "put", "said"),
    [
        ('"precision": "fp32"', '"precision": "int8"', "has no float ONNX graph"),
        ('"config":', '"konfig":', "does not say how the network was configured"),
    ],
)
def test_a_bundle_that_cannot_be_restored(
    copied: Path, finished: Path, find: str, put: str, said: str
) -> None:
    text = (copied / "bundle/bundle.json").read_text()
    assert find in text
    rewrite(copied / "bundle", "bundle.json", text.replace(find, put).encode())
    with pytest.raises(UserError, match=said):
        restore(copied / "bundle", finished.parent.parent / "manifest.csv", copied / "out")


def test_a_run_that_is_there_is_kept(finished: Path, restored: Path, tmp_path: Path) -> None:
    there = tmp_path / "run"
    shutil.copytree(finished, there)
    before = open_trained(there).sha256
    with pytest.raises(UserError, match="holds a run already"):
        restore(finished / "bundle", finished.parent.parent / "manifest.csv", there)
    assert open_trained(there).sha256 == before


def test_statistics_do_not_hang_on_the_order_of_faces(finished: Path, tmp_path: Path) -> None:
    """Dark faces first, bright ones last: the spread between batches counts as well."""
    manifest = read_manifest(finished.parent.parent / "manifest.csv")
    faces = packed_faces(manifest, open_trained(finished).config.input)[:576]
    faces = np.clip(faces * np.linspace(0.5, 1.5, len(faces))[:, None, None, None], 0, 255)
    faces = faces.astype(np.uint8)
    shuffled = np.random.default_rng(0).permutation(faces)
    states = [
        put_back(open_bundle(finished / "bundle"), torch.from_numpy(part), tmp_path / name)
        .model.state_dict()
        for name, part in (("sorted", faces), ("shuffled", shuffled))
    ]  # fmt: skip
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-3)
