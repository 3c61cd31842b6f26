"""`fer-edge evaluate`: the real command over labelled images, checked against scikit-learn."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from contract.bundle import Bundle
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.faces import prepare_face, read_image
from contract.manifest import Row, read_manifest, write_manifest
from contract.metrics import softmax
from edge.cli import main
from edge.offline.evaluate import predict
from runtime.session import open_session
from tests.models import grating, make_images
from tests.system.commands import fer_edge

SIZE = 48


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gratings that are noisy enough to be mistaken now and then, in two splits and two sources."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(4)
    rows = []
    for number in range(140):
        label = number % 7
        image = grating(label, rng, SIZE, noise=300.0 if number % 2 else 40.0)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        source = "noisy" if number % 2 else "clean"
        split = "val" if number % 5 else "test"
        rows.append(Row(f"{number}.png", EXPRESSIONS[label], split, source))
    write_manifest(folder / "all.csv", rows)
    return folder / "all.csv"


def evaluate(manifest: Path, bundle: Bundle, out: Path, *more: str) -> dict[str, Any]:
    arguments = ["--manifest", str(manifest), "--model", str(bundle.folder), "--json", str(out)]
    assert main(["evaluate", *arguments, "--detector", "haar", *more]) == 0
    result: dict[str, Any] = json.loads(out.read_text())
    return result


def test_the_figures_are_scikit_learns_on_the_same_predictions(
    manifest: Path, tiny: Bundle, tmp_path: Path
) -> None:
    done = fer_edge(
        "evaluate", "--manifest", manifest, "--model", tiny.folder, "--json", tmp_path / "m.json",
        "--protocol", "strict", cache=tmp_path / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "m.json").read_text())
    assert set(found) >= {
        "n", "protocol", "accuracy", "macro_f1", "per_class_f1", "nll", "brier", "ece",
        "adaptive_ece", "classwise_ece", "temperature", "by_source",
    }  # fmt: skip

    session = open_session(tiny, tiny.info.artifacts[0], "onnxruntime", threads=1)
    content = read_manifest(manifest)
    images = [read_image(content.path(row)) for row in content.rows]
    faces = np.stack([prepare_face(i, tiny.info.input) for i in images if i is not None])
    p = softmax(session.run(faces), tiny.info.temperature)
    session.close()
    truth, guess = content.labels(), p.argmax(axis=1)
    assert 0.5 < accuracy_score(truth, guess) < 0.98, "a set without mistakes would test little"

    assert (found["n"], found["n_predicted"], found["protocol"]) == (140, 140, "strict")
    assert found["temperature"] == tiny.info.temperature
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert list(found["per_class_f1"]) == list(EXPRESSIONS)
    assert list(found["per_class_f1"].values()) == pytest.approx(
        f1_score(truth, guess, average=None).tolist()
    )
    # Which runtime was quicker is not known here: they agree to some 1e-5.
    assert found["nll"] == pytest.approx(log_loss(truth, p, labels=range(7)), abs=1e-3)
    one_hot = np.eye(7)[truth]
    assert found["brier"] == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean(), abs=1e-3)
    assert found["confusion_matrix"] == confusion_matrix(truth, guess).tolist()

    low, high = found["intervals"]["accuracy"]
    assert low < found["accuracy"] < high
    half = 1.96 * np.sqrt(found["accuracy"] * (1 - found["accuracy"]) / 140)
    assert high - low == pytest.approx(2 * half, abs=0.02), "as wide as theory says"
    low, high = found["intervals"]["ece"]
    assert 0 <= low <= found["ece"] <= high
    curve = found["coverage"]
    assert (curve[0]["coverage"], curve[0]["accuracy"]) == (1.0, pytest.approx(found["accuracy"]))
    surest = np.argsort(-p.max(axis=1), kind="stable")[:70]
    assert curve[-1]["coverage"] == 0.5
    assert curve[-1]["accuracy"] == pytest.approx((truth == guess)[surest].mean(), abs=0.03)

    assert set(found["by_source"]) == {"clean", "noisy"}
    for source, figures in found["by_source"].items():
        rows = np.array([row.source == source for row in content.rows])
        assert figures["n"] == 70
        assert figures["accuracy"] == pytest.approx(accuracy_score(truth[rows], guess[rows]))

    assert found["manifest"]["sha256"] == content.sha256
    assert found["bundle"] == {"name": "tiny", "sha256": tiny.sha256}
    assert f"accuracy {found['accuracy']:.4f}" in done.stdout


def test_one_split_alone(manifest: Path, tiny: Bundle, tmp_path: Path, own_cache: Path) -> None:
    for split, n in (("val", 112), ("test", 28)):
        found = evaluate(manifest, tiny, tmp_path / "m.json", "--split", split)
        assert (found["n"], found["manifest"]["split"]) == (n, split)
    with pytest.raises(UserError, match="no rows of split 'calib'"):
        evaluate(manifest, tiny, tmp_path / "none.json", "--split", "calib")
    assert not (tmp_path / "none.json").exists()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """One photo with a face, at the third row, and three without."""
    data = pytest.importorskip("skimage.data", reason="the demo's portraits are not installed")
    cv2.imwrite(str(tmp_path / "face.png"), data.astronaut()[..., ::-1])
    cv2.imwrite(str(tmp_path / "none.png"), np.full((200, 300), 127, np.uint8))
    names = ["none.png", "none.png", "face.png", "none.png"]
    write_manifest(
        tmp_path / "photos.csv",
        [Row(name, "happy", "val", name.removesuffix(".png")) for name in names],
    )
    return tmp_path / "photos.csv"


def test_a_missed_face_is_a_wrong_answer(
    photos: Path, tiny: Bundle, tmp_path: Path, own_cache: Path
) -> None:
    first = evaluate(photos, tiny, tmp_path / "m.json", "--detect")
    guessed = EXPRESSIONS[int(np.argmax(np.sum(first["confusion_matrix"], axis=0)))]
    photos.write_text(photos.read_text().replace("happy", guessed))
    found = evaluate(photos, tiny, tmp_path / "m.json", "--detect")
    assert (found["n"], found["n_predicted"], found["detector"]) == (4, 1, "haar")
    assert found["accuracy"] == 0.25, "right about the one face it found, of four"
    assert found["by_source"]["face"]["accuracy"] == 1.0
    assert found["by_source"]["none"] == {"n": 3, "n_predicted": 0, "accuracy": 0.0}


def test_without_detect_the_image_is_the_face(
    photos: Path, tiny: Bundle, tmp_path: Path, own_cache: Path
) -> None:
    found = evaluate(photos, tiny, tmp_path / "m.json")
    assert (found["n"], found["n_predicted"], found["detector"]) == (4, 4, None)


def test_rows_keep_their_order_whatever_the_batch(manifest: Path, tiny: Bundle) -> None:
    session = open_session(tiny, tiny.info.artifacts[0], "onnxruntime", threads=1)
    content = read_manifest(manifest)
    whole = predict(content, tiny, session, None)
    for position in (0, 7, 8, 139):
        row = content.rows[position]
        image = read_image(content.path(row))
        assert image is not None
        alone = softmax(session.run(prepare_face(image, tiny.info.input)[None]), 0.6)
        assert whole.probabilities[position] == pytest.approx(alone[0], abs=1e-5)
        assert whole.sources[position] == row.source
    session.close()


def test_an_image_that_cannot_be_decoded_is_named_with_its_line(
    tiny: Bundle, tmp_path: Path
) -> None:
    manifest = make_images(tmp_path, per_class=1)
    lines = list(csv.reader(manifest.read_text().splitlines()))
    damaged = tmp_path / lines[4][0]
    damaged.write_bytes(damaged.read_bytes()[:20])
    done = fer_edge(
        "evaluate", "--manifest", manifest, "--model", tiny.folder, "--json", tmp_path / "m.json",
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"fer-edge: {manifest}: line 5: {damaged} cannot be decoded as an image; "
        "restore it or remove the row"
    ]
    assert not (tmp_path / "m.json").exists()


def test_a_precision_the_bundle_does_not_have_is_named(
    manifest: Path, tiny: Bundle, tmp_path: Path, own_cache: Path
) -> None:
    found = evaluate(manifest, tiny, tmp_path / "m.json", "--precision", "fp32")
    assert found["precision"] == "fp32"
    assert not (own_cache / "fer-edge" / "choice.json").exists(), "no choice among all artifacts"
    with pytest.raises(UserError, match="has only: fp32"):
        evaluate(manifest, tiny, tmp_path / "none.json", "--precision", "int8")
