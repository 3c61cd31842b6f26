"""`fer-edge evaluate --conformal`: sets fitted on one list of images and reported on another."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from contract import conformal
from contract.bundle import Bundle
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.manifest import Row, read_manifest, write_manifest
from edge.cli import main
from edge.offline.evaluate import predict
from runtime.session import open_session
from tests.models import grating


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """calib.csv with 70 noisy gratings and val.csv with 63 others."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(8)
    for split, count in (("calib", 70), ("val", 63)):
        rows = []
        for number in range(count):
            name = f"{split}{number}.png"
            cv2.imwrite(str(folder / name), grating(number % 7, rng, noise=250.0))
            rows.append(Row(name, EXPRESSIONS[number % 7], split, "gratings"))
        write_manifest(folder / f"{split}.csv", rows)
    return folder


def evaluate(folder: Path, bundle: Bundle, out: Path, *more: str) -> None:
    given = ["--manifest", str(folder / "val.csv"), "--model", str(bundle.folder)]
    assert main(["evaluate", *given, "--json", str(out), "--backend", "onnxruntime", *more]) == 0


def test_sets_are_fitted_on_one_list_and_reported_on_the_other(
    folder: Path, tiny: Bundle, tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.json"
    calib = folder / "calib.csv"
    evaluate(folder, tiny, out, "--conformal", "0.2", "--conformal-calib", str(calib))
    found = json.loads(out.read_text())["conformal"]
    shown = capsys.readouterr().out

    session = open_session(tiny, tiny.info.artifacts[0], "onnxruntime", threads=1)
    one = predict(read_manifest(calib), tiny, session, None)
    two = predict(read_manifest(folder / "val.csv"), tiny, session, None)
    session.close()
    scores = np.sort(1 - one.probabilities[np.arange(70), one.labels])
    quantile = scores[57 - 1]  # ⌈71 · 0.8⌉ = 57
    sets = 1 - two.probabilities <= quantile + 1e-6
    assert found["quantile"] == pytest.approx(quantile, abs=1e-5)
    assert found["coverage"] == pytest.approx(sets[np.arange(63), two.labels].mean())
    assert found["mean_set_size"] == pytest.approx(sets.sum(axis=1).mean())
    assert found["singletons"] == pytest.approx((sets.sum(axis=1) == 1).mean())
    assert list(found["class_coverage"]) == list(EXPRESSIONS)
    assert (found["alpha"], found["n"]) == (0.2, 63)
    assert found["calib"] == {
        "file": str(calib), "sha256": read_manifest(calib).sha256, "n": 70, "n_predicted": 70,
    }  # fmt: skip
    assert f"coverage {found['coverage']:.4f}" in shown
    assert f"mean size {found['mean_set_size']:.2f}" in shown


def test_without_the_option_there_are_no_sets(
    folder: Path, tiny: Bundle, tmp_path: Path, own_cache: Path
) -> None:
    evaluate(folder, tiny, tmp_path / "m.json")
    assert "conformal" not in json.loads((tmp_path / "m.json").read_text())


def written(folder: Path, name: str, row: Row) -> str:
    rows = [*read_manifest(folder / "calib.csv").rows, row]
    write_manifest(folder / name, rows)
    return str(folder / name)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--conformal", "0.1"], "go together"),
        (["--conformal-calib", "CALIB"], "go together"),
        (["--conformal", "1.5", "--conformal-calib", "CALIB"], "between 0 and 1"),
        (
            ["--conformal", "0.01", "--conformal-calib", "CALIB"],
            "gives 70 rows to fit on and it takes at least 99",
        ),
        (["--conformal", "0.1", "--conformal-calib", "VAL"], "line 2: .* is also reported on"),
        (["--conformal", "0.1", "--conformal-calib", "TEST"], "line 72: .* is a test row"),
        (["--conformal", "0.1", "--conformal-calib", "TRAIN"], "line 72: .* is a train row"),
        (["--conformal", "0.1", "--conformal-calib", "TWICE"], "line 72: .* is also reported on"),
    ],
)
def test_what_would_promise_nothing_is_refused_before_any_work(
    folder: Path, tiny: Bundle, tmp_path: Path, more: list[str], said: str
) -> None:
    files = {
        "CALIB": str(folder / "calib.csv"),
        "VAL": str(folder / "val.csv"),
        "TEST": written(folder, "test.csv", Row("calib0.png", "happy", "test", "x")),
        "TRAIN": written(folder, "train.csv", Row("calib0.png", "happy", "train", "x")),
        # The same image by another way of writing its path.
        "TWICE": written(folder, "twice.csv", Row("./val5.png", "happy", "calib", "x")),
    }
    with pytest.raises(UserError, match=said):
        evaluate(folder, tiny, tmp_path / "m.json", *[files.get(word, word) for word in more])
    assert not (tmp_path / "m.json").exists()


def test_photos_without_a_face_have_no_set(tiny: Bundle, tmp_path: Path, own_cache: Path) -> None:
    """Among images of which too few show a face the promise cannot be kept, and it says so."""
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((120, 160, 3), 127, np.uint8))
    write_manifest(tmp_path / "val.csv", [Row("a.png", "happy", "val", "x")])
    write_manifest(tmp_path / "calib.csv", [Row("b.png", "happy", "calib", "x")])
    more = ["--conformal", "0.5", "--conformal-calib", str(tmp_path / "calib.csv")]
    with pytest.raises(UserError, match="gives 0 rows to fit on and it takes at least 1"):
        evaluate(tmp_path, tiny, tmp_path / "m.json", "--detect", "--detector", "haar", *more)
    assert conformal.least_rows(0.5) == 1
