"""Softlabels: what the teachers say about the very views a student sees, refused when stale."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax

import trainer.softlabels
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import sha256_file
from contract.manifest import read_manifest, write_manifest
from tests.trainer.teachers import COLOUR, GREY, ROWS, teacher, two_sources, two_teachers
from tests.trainer.tiny import fer_trainer, make_phase
from trainer.backbones import Features
from trainer.commands import ensemble as ensemble_command
from trainer.commands.softlabels import main
from trainer.config import AugmentConfig, OptimConfig
from trainer.data.augment import augment, draw
from trainer.data.cache import packed_faces
from trainer.ensemble import open_ensemble
from trainer.softlabels_store import SoftLabels, open_softlabels

SEED, VIEWS, GRID = 5, 2, 3
AUGMENT = AugmentConfig(flip=0.4, noise=3.0)
SECTION = "[augment]\nflip = 0.4\nnoise = 3.0\n[input]\nsize = 32\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ensemble and its softlabels with features in `soft`. Read only."""
    folder = tmp_path_factory.mktemp("soft")
    file = two_sources(folder)
    runs = [str(run) for run in two_teachers(file)]
    places = ["--manifest", str(file), "--out", str(folder / "both"), "--device", "cpu"]
    ensemble_command.main([*runs, *places, "--weights", "3,1"])
    make_phase(folder, SECTION)
    assert export(folder, "soft") == 0
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change, at another place."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def arguments(folder: Path, name: str) -> list[str]:
    return [
        "--ensemble", str(folder / "both/ensemble.json"), "--manifest",
        str(folder / "manifest.csv"), "--out", str(folder / name), "--student",
        str(folder / "tiny.toml"), "--views", str(VIEWS), "--seed", str(SEED), "--features",
        "--attention-grid", str(GRID), "--device", "cpu",
    ]  # fmt: skip


def export(folder: Path, name: str, *flags: str) -> int:
    return main([*arguments(folder, name), *flags])


def opened(folder: Path, name: str = "soft", config: AugmentConfig | None = AUGMENT) -> SoftLabels:
    return open_softlabels(folder / name, read_manifest(folder / "manifest.csv"), config)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def told(folder: Path, name: str) -> Any:
    return json.loads((folder / "soft" / name).read_text())


def asked(folder: Path, view: int | None) -> tuple[NDArray[np.float64], list[Features]]:
    """The ensemble on a view of all training rows at once: logits in NumPy, teachers' features.

    This is what a student does that makes the views itself, but with the teachers' eyes.
    """
    ensemble, manifest = open_ensemble(folder / "both"), read_manifest(folder / "manifest.csv")
    train = [n for n, row in enumerate(manifest.rows) if row.split == "train"]
    fused, features = np.zeros((len(train), 7)), []
    for trained, member in zip(ensemble.teachers, ensemble.info.teachers, strict=True):
        size = trained.config.input.size
        faces = torch.from_numpy(packed_faces(manifest, trained.config.input)[train])
        pixels = faces.permute(0, 3, 1, 2).float()
        if view is not None:
            pixels = augment(faces, size, AUGMENT, draw(len(train), SEED, view))
        with torch.inference_mode():
            logits, seen = trained.model(pixels, with_features=True)
        fused += member.weight * logits.double().numpy() / member.temperature
        features.append(seen)
    return fused, features


def test_clean_are_the_ensembles_logits_of_the_training_rows(made: Path) -> None:
    soft = opened(made)
    assert soft.clean.shape == (ROWS["train"], 7)
    assert soft.clean.dtype == soft.views.dtype == torch.float32
    np.testing.assert_allclose(soft.clean, asked(made, None)[0], atol=1e-3)


@pytest.mark.parametrize("view", range(VIEWS))
def test_views_are_of_what_the_student_will_see(made: Path, view: int) -> None:
    soft = opened(made)
    assert (soft.views.shape, soft.seed) == ((ROWS["train"], VIEWS, 7), SEED)
    expected, _ = asked(made, view)
    np.testing.assert_allclose(soft.views[:, view], expected, atol=1e-3)
    assert np.abs(expected - soft.clean.numpy()).max() > 0.1  # and it is no clean image


def test_features_by_numpy(made: Path) -> None:
    soft = opened(made)
    assert soft.attention is not None
    assert soft.embedding is not None
    assert soft.attention.dtype == soft.embedding.dtype == torch.float16
    _, features = asked(made, 1)
    grams, maps = [], []
    for seen in features:
        embedding = seen.embedding.double().numpy()
        embedding = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        grams.append(embedding @ embedding.T)
        energy = (seen.map.double() ** 2).mean(1)
        pooled = torch.nn.functional.adaptive_avg_pool2d(energy, GRID).flatten(1).numpy()
        maps.append(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))
    stored = soft.embedding[:, 1].double().numpy()
    np.testing.assert_allclose(stored @ stored.T, 0.75 * grams[0] + 0.25 * grams[1], atol=2e-3)
    np.testing.assert_allclose(soft.attention[:, 1].double(), (maps[0] + maps[1]) / 2, atol=1e-3)


def test_the_index_names_every_training_image_with_its_hash(made: Path) -> None:
    manifest = read_manifest(made / "manifest.csv")
    lines = (made / "soft/softlabels_index.jsonl").read_text().splitlines()
    train = [row for row in manifest.rows if row.split == "train"]
    assert [json.loads(line) for line in lines] == [
        {"index": n, "path": r.path, "label": r.label, "sha256": sha256_file(manifest.path(r))}
        for n, r in enumerate(train)
    ]


def test_everything_it_was_made_from_is_hashed(made: Path) -> None:
    hashes, folder = told(made, "hash_manifest.json"), made / "soft"
    assert set(hashes["files"]) | {"hash_manifest.json"} == {f.name for f in folder.iterdir()}
    sources = [hashes["manifest"], hashes["ensemble"], *hashes["teachers"]]
    assert [Path(os.path.normpath(folder / s["path"])) for s in sources] == [
        made / "manifest.csv", made / "both/ensemble.json",
        made / "runs/plain/checkpoints/best.safetensors",
        made / "runs/cosine/checkpoints/best.safetensors",
    ]  # fmt: skip
    for source in sources:
        assert sha256_file(folder / source["path"]) == source["sha256"]
    for name, sha256 in hashes["files"].items():
        assert sha256_file(folder / name) == sha256
    assert opened(made).sha256 == sha256_file(folder / "hash_manifest.json")


def test_how_they_were_made_is_told(made: Path) -> None:
    about = told(made, "softlabels.json")
    assert about["augment"] == AUGMENT.model_dump()
    assert (about["rows"], about["views"], about["seed"]) == (ROWS["train"], VIEWS, SEED)
    assert about["temperature"] == open_ensemble(made / "both").info.temperature
    assert told(made, "classorder.json") == list(EXPRESSIONS)


def test_the_alignment_report_by_hand(made: Path) -> None:
    report, soft = told(made, "alignmentreport.json"), opened(made)
    train = [r for r in read_manifest(made / "manifest.csv").rows if r.split == "train"]
    labels = np.array([EXPRESSIONS.index(row.label) for row in train])
    p = softmax(soft.clean.double().numpy() / soft.temperature, axis=1)
    of_label, top = p[np.arange(len(p)), labels], p.argmax(axis=1)

    def expected(chosen: NDArray[np.bool_]) -> dict[str, float]:
        entropy = -(p[chosen] * np.log(p[chosen])).sum(axis=1)
        return {
            "n": chosen.sum(), "agreement": np.mean(top[chosen] == labels[chosen]),
            "mean_p_of_label": of_label[chosen].mean(), "mean_entropy": entropy.mean(),
            "nll": -np.log(of_label[chosen]).mean(),
        }  # fmt: skip

    assert report["all"] == pytest.approx(expected(labels >= 0))
    assert set(report["classes"]) == set(EXPRESSIONS)
    assert report["classes"]["fear"] == pytest.approx(expected(labels == 2))
    from_b = np.array([row.source == "b" for row in train])
    assert set(report["sources"]) == {"a", "b"}
    assert report["sources"]["b"] == pytest.approx(expected(from_b))
    worst = report["most_at_odds"]
    assert [row["path"] for row in worst] == [train[n].path for n in of_label.argsort()[:20]]
    assert worst[0]["label"] != worst[0]["ensemble"]


def test_the_ensembles_figures_are_extended_by_the_training_rows(made: Path) -> None:
    before = json.loads((made / "both/ensemble_metrics.json").read_text())["rows"]
    after = told(made, "ensemble_metrics.json")["rows"]
    assert after[: len(before)] == before
    assert [(r["model"], r["split"], r["source"]) for r in after[len(before) :]] == [
        ("ensemble", "train", "all"), ("ensemble", "train", "a"), ("ensemble", "train", "b"),
    ]  # fmt: skip


def test_the_same_again_gives_the_same_files_and_another_seed_other_views(copied: Path) -> None:
    before, soft = files(copied / "soft"), opened(copied)
    assert export(copied, "soft") == 0
    assert files(copied / "soft") == before
    assert export(copied, "soft", "--seed", "6") == 0
    other = opened(copied)
    assert torch.equal(other.clean, soft.clean)
    assert not torch.allclose(other.views, soft.views, atol=0.1)
    assert other.sha256 != soft.sha256


@pytest.mark.timeout(300)  # two processes that import torch, on a machine that may be busy
def test_two_processes_write_the_same_files(copied: Path) -> None:
    before = files(copied / "soft")
    shutil.rmtree(copied / "soft")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    with subprocess.Popen(
        [sys.executable, *command, "-m", "trainer", "softlabels", *arguments(copied, "soft")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            _, errors = process.communicate(timeout=250)
        except subprocess.TimeoutExpired:
            process.terminate()  # asked, not killed, the launcher ends its workers too
            raise
    assert process.returncode == 0, errors
    assert files(copied / "soft") == before


def test_teachers_answer_in_the_precision_they_were_trained_in_where_asked(tmp_path: Path) -> None:
    manifest = two_sources(tmp_path)
    runs = [
        teacher(manifest, "half", GREY, optim=OptimConfig(amp="bf16")),
        teacher(manifest, "plain", GREY),
    ]
    made = {}
    for flags in ((), ("--amp",)):
        for run in runs:
            places = ["--manifest", str(manifest), "--out", str(tmp_path / "both"), "--device"]
            ensemble_command.main([str(run), *places, "cpu"])
            make_phase(tmp_path, SECTION)
            assert export(tmp_path, "soft", *flags) == 0
            assert told(tmp_path, "softlabels.json")["amp"] == bool(flags)
            made[run.name, flags] = opened(tmp_path)
    off = (made["half", ("--amp",)].views - made["half", ()].views).abs()
    assert 0 < off.max() < 0.05 * made["half", ()].views.abs().max()  # 8 bits of mantissa
    assert torch.equal(made["plain", ("--amp",)].views, made["plain", ()].views)


def test_without_views_or_features_there_are_only_clean_logits(copied: Path) -> None:
    with pytest.raises(UserError, match="--features are those of augmented views"):
        export(copied, "soft", "--views", "0")
    flags = [flag for flag in arguments(copied, "soft") if flag != "--features"]
    assert main([*flags, "--views", "0"]) == 0
    soft = opened(copied, config=AugmentConfig(flip=1))  # no views that could differ
    assert soft.views.shape == (ROWS["train"], 0, 7)
    assert soft.attention is None
    assert soft.embedding is None


@pytest.mark.parametrize(
    ("views", "weights", "expected"),
    [
        ("0", {}, "soft: holds no views; .*--views 4, or set distill.views=clean"),
        ("1", {"attention_weight": 0.1}, "soft: .*no features for distill.attention_weight; .*--f"),
        ("1", {"similarity_weight": 0.1}, "soft: .*no features for distill.similarity_weight; "),
    ],
)
def test_a_student_says_what_its_softlabels_lack(
    copied: Path, views: str, weights: dict[str, float], expected: str
) -> None:
    flags = [flag for flag in arguments(copied, "soft") if flag != "--features"]
    assert main([*flags, "--views", views]) == 0
    settings = [f"--set=distill.{key}={value}" for key, value in weights.items()]
    with pytest.raises(UserError, match=expected):
        fer_trainer(
            "--phase", str(copied / "tiny.toml"), "--softlabels", str(copied / "soft"),
            "--set", "distill.method=kd", "--device", "cpu", *settings,
        )  # fmt: skip


def test_an_export_that_is_stopped_leaves_what_was_there(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, beside = files(copied / "soft"), sorted(copied.iterdir())

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.softlabels, "commit_of_this_project", stop)
    for name in ("soft", "fresh"):
        with pytest.raises(KeyboardInterrupt):
            export(copied, name)
    assert files(copied / "soft") == before
    assert sorted(copied.iterdir()) == beside  # no folder `fresh`, whole or half


def rehash(folder: Path, name: str, content: object) -> None:
    """Another content for a file of the softlabels, with the right hash of it."""
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "soft" / name).write_text(text)
    hashes = told(folder, "hash_manifest.json")
    hashes["files"][name] = sha256_file(folder / "soft" / name)
    (folder / "soft/hash_manifest.json").write_text(json.dumps(hashes))


def _damaged(folder: Path) -> None:
    file = folder / "soft/softlabels.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def _gone(folder: Path) -> None:
    (folder / "soft/alignmentreport.json").unlink()


def _half(folder: Path) -> None:
    (folder / "soft/hash_manifest.json").unlink()


def _other_manifest(folder: Path) -> None:
    rows = read_manifest(folder / "manifest.csv").rows
    write_manifest(folder / "manifest.csv", rows[1:])


def _other_order(folder: Path) -> None:
    rehash(folder, "classorder.json", list(EXPRESSIONS[::-1]))


def _other_image(folder: Path) -> None:
    shutil.copyfile(folder / "train/0000.png", folder / "train/0007.png")


def _other_teacher(folder: Path) -> None:
    other = teacher(folder / "manifest.csv", "other", COLOUR)
    file = "checkpoints/best.safetensors"
    shutil.copyfile(other / file, folder / "runs/cosine" / file)


def _other_index(folder: Path) -> None:
    lines = (folder / "soft/softlabels_index.jsonl").read_text().splitlines()
    rehash(folder, "softlabels_index.jsonl", "\n".join([lines[1], lines[0], *lines[2:]]))


def _short_index(folder: Path) -> None:
    lines = (folder / "soft/softlabels_index.jsonl").read_text().splitlines()
    rehash(folder, "softlabels_index.jsonl", "\n".join(lines[1:]))


def _other_schema(folder: Path) -> None:
    rehash(folder, "softlabels.json", {**told(folder, "softlabels.json"), "schema_version": 2})


def _other_shape(folder: Path) -> None:
    rehash(folder, "softlabels.json", {**told(folder, "softlabels.json"), "views": 3})


STALE: dict[str, tuple[Callable[[Path], None], str]] = {
    "damaged file": (_damaged, r"softlabels\.npz does not match its hash"),
    "missing file": (_gone, r"alignmentreport\.json is missing from the softlabels"),
    "half a folder": (_half, r"no softlabels at .*it has no hash_manifest\.json"),
    "another manifest": (_other_manifest, r"made for another manifest .*manifest\.csv"),
    "another order": (_other_order, r"classorder\.json: logits are in the order .*'neutral'"),
    "another image": (_other_image, r"line 9: .*0007\.png: the image is not the one"),
    "another teacher": (_other_teacher, r"cosine.*best\.safetensors: this teacher has changed"),
    "rows in another order": (_other_index, r"line 2: .*train/0001\.png \(disgust\) in its place"),
    "too few rows": (_short_index, r"149 rows, .*manifest\.csv has 150 to train on"),
    "another schema": (_other_schema, r"softlabels\.json: schema_version: .*got 2"),
    "arrays of another shape": (_other_shape, r"views is float32 of shape \(150, 2, 7\), not"),
}


@pytest.mark.parametrize(("change", "message"), STALE.values(), ids=STALE)
def test_stale_softlabels_are_refused_with_what_differs(
    copied: Path, change: Callable[[Path], None], message: str
) -> None:
    assert opened(copied).clean.shape == (ROWS["train"], 7)
    change(copied)
    with pytest.raises(UserError, match=message):
        opened(copied)


def test_an_image_is_held_against_the_manifests_hash_where_it_has_one(copied: Path) -> None:
    """The manifest says which image a row means, at export and when they are opened."""
    manifest = read_manifest(copied / "manifest.csv")
    hashed = [replace(row, sha256=sha256_file(manifest.path(row))) for row in manifest.rows]
    write_manifest(copied / "manifest.csv", hashed)
    assert export(copied, "soft") == 0
    assert opened(copied).clean.shape == (ROWS["train"], 7)
    lines = (copied / "soft/softlabels_index.jsonl").read_text()
    rehash(copied, "softlabels_index.jsonl", lines.replace(hashed[3].sha256, "0" * 64))
    with pytest.raises(UserError, match=r"line 5: .*0003\.png: the image is not the one"):
        opened(copied)
    _other_image(copied)
    with pytest.raises(UserError, match=r"line 9: .*0007\.png: .*not have the manifest's sha256"):
        export(copied, "soft")


def test_another_augmentation_is_named_by_its_key(made: Path) -> None:
    other = AUGMENT.model_copy(update={"rotate_deg": 20.0})
    with pytest.raises(UserError, match=r"augment\.rotate_deg = 12\.0, the student has 20\.0"):
        opened(made, config=other)
    assert opened(made, config=None).seed == SEED  # a student that makes no views does not mind


def test_a_teacher_that_has_moved_away_is_not_missed(copied: Path) -> None:
    shutil.rmtree(copied / "runs")
    assert opened(copied).clean.shape == (ROWS["train"], 7)


def test_a_changed_teacher_is_not_exported(copied: Path) -> None:
    _other_teacher(copied)
    with pytest.raises(UserError, match=r"cosine.*best\.safetensors: has changed since"):
        export(copied, "new")
    assert not (copied / "new").exists()


def test_an_ensemble_weighed_on_another_manifest_is_pointed_out(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(copied, "soft", "--views", "1") == 0
    assert "note" not in capsys.readouterr().out
    _other_manifest(copied)
    assert export(copied, "soft", "--views", "1") == 0
    assert "note: the ensemble was weighed on another manifest" in capsys.readouterr().out


def test_something_else_is_not_overwritten(copied: Path) -> None:
    for place in ("both", "manifest.csv"):
        with pytest.raises(UserError, match="exists and holds no softlabels"):
            export(copied, place)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--views", "-1"], "--views -1: use 0 or more"),
        (["--seed", "-1"], "--seed -1: use 0 or more"),
        (["--attention-grid", "0"], "--attention-grid 0: use 1 or more"),
        (["--student", "student_kt"], "student_kt: no such phase, did you mean 'student_kd'"),
        (["--set", "augment.flipp=0"], "unknown key 'augment.flipp', did you mean 'flip'"),
    ],
)
def test_wrong_arguments_are_refused(made: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(made, "refused", *flags)


def test_a_manifest_without_training_rows_is_refused(copied: Path) -> None:
    rows = [row for row in read_manifest(copied / "manifest.csv").rows if row.split != "train"]
    write_manifest(copied / "manifest.csv", rows)
    with pytest.raises(UserError, match=r"manifest\.csv: no rows of split 'train'"):
        export(copied, "new")
