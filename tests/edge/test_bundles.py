"""Which bundle runs, and the one that is built in: whole, alike on every runtime, and small."""

import re
from pathlib import Path

import pytest

from contract.bundle import BUNDLE_FILE, Bundle, open_bundle
from contract.checksums import SUMS_FILE, write_sums
from contract.errors import UserError
from edge import bundles
from edge.bundles import DEFAULT_BUNDLE, bundle_to_run
from edge.setup import cache_folder, start_engine
from firmware_config.profile import load_profile
from runtime import golden
from runtime.errors import UnavailableError
from runtime.session import BACKENDS, open_session

LARGEST_FILE = 10_000_000


def test_a_named_bundle_runs_and_otherwise_the_built_in_one(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundle_to_run(tiny.folder).sha256 == tiny.sha256
    monkeypatch.setattr(bundles, "DEFAULT_BUNDLE", tiny.folder)
    assert bundle_to_run(None).sha256 == tiny.sha256


def test_a_folder_without_a_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"no bundle at {tmp_path}")):
        bundle_to_run(tmp_path)


def test_a_bundle_without_a_crop_for_the_detector_is_refused(
    tiny: Bundle, tmp_path: Path, own_cache: Path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    crop = {"yunet": tiny.info.input.crop["yunet"]}
    face = tiny.info.input.model_copy(update={"crop": crop})
    info = tiny.info.model_copy(update={"input": face})
    (folder / BUNDLE_FILE).write_text(info.model_dump_json())
    for artifact in info.artifacts:
        (folder / artifact.file).write_bytes(tiny.path(artifact).read_bytes())
    write_sums(folder)
    profile = load_profile("demo", {"runtime.bundle": folder, "detector.kind": "haar"})
    with pytest.raises(UserError, match=r"no crop was measured for detector 'haar' \(has: yunet\)"):
        start_engine(profile)


def test_choices_are_kept_where_the_user_keeps_caches(own_cache: Path) -> None:
    assert cache_folder() == own_cache / "fer-edge"


@pytest.fixture
def built_in() -> Bundle:
    if not (DEFAULT_BUNDLE / BUNDLE_FILE).is_file():
        pytest.skip("no built-in bundle: none is committed at edge/default_bundle yet")
    return open_bundle(DEFAULT_BUNDLE)


def test_the_built_in_bundle_holds_what_belongs_to_it_and_nothing_large(built_in: Bundle) -> None:
    files = {path.name: path for path in built_in.folder.rglob("*") if path.is_file()}
    named = {name for artifact in built_in.info.artifacts for name in artifact.sha256}
    assert named | {BUNDLE_FILE, SUMS_FILE, "model_card.md"} <= set(files)
    reports = {"report.json", "report.md", "report.png"}
    assert set(files) <= named | {BUNDLE_FILE, SUMS_FILE, "model_card.md"} | reports
    for path in files.values():
        assert path.stat().st_size < LARGEST_FILE, f"{path.name} costs every clone for ever"


def test_the_built_in_bundle_is_quantized_with_a_float_one_to_fall_back_on(
    built_in: Bundle,
) -> None:
    precisions = [artifact.precision for artifact in built_in.info.artifacts]
    assert precisions[0] == "int8" and precisions[-1] in ("fp16", "fp32")
    assert set(built_in.info.input.crop) == {"yunet", "haar"}


def test_every_artifact_of_the_built_in_bundle_answers_as_the_float_model_did(
    built_in: Bundle,
) -> None:
    for artifact in built_in.info.artifacts:
        checked = 0
        for backend in BACKENDS:
            try:
                session = open_session(built_in, artifact, backend, threads=1)
            except UnavailableError:
                continue
            golden.check(session, built_in, artifact)
            session.close()
            checked += 1
        assert checked, f"no runtime reads {artifact.file}"


def test_the_built_in_bundles_card_says_what_it_may_be_used_for(built_in: Bundle) -> None:
    card = (built_in.folder / "model_card.md").read_text(encoding="utf-8").lower()
    for word in ("fer+", "argmax", "accuracy", "macro_f1", "limit", "age", "skin", "sex"):
        assert word in card, f"the card does not mention '{word}'"
