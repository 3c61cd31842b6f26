"""A bundle opens as it was written, or not at all."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.bundle import (
    BUNDLE_FILE,
    Artifact,
    BundleInfo,
    Golden,
    Provenance,
    artifact_of,
    golden_inputs,
    open_bundle,
    write_bundle,
)
from contract.checksums import SUMS_FILE, write_sums
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.faces import CropGeometry, FaceInput

FILES = {"net.xml": b"<net/>" * 20, "net.bin": bytes(range(256)), "net.onnx": b"onnx" * 50}
EVERY = {*FILES, BUNDLE_FILE, SUMS_FILE, "model_card.md"}
Content = dict[str, Any]


def make(folder: Path, name: str = "a model") -> BundleInfo:
    """A bundle of two artifacts at `folder`; returns what it was made from."""
    parts = folder.parent / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    for file, content in FILES.items():
        (parts / file).write_bytes(content)
    info = BundleInfo(
        name=name,
        expressions=list(EXPRESSIONS),
        input=FaceInput(size=48, clahe=True, crop={"yunet": CropGeometry(scale=1.1)}),
        temperature=1.37,
        class_thresholds={"disgust": 0.3},
        abstain_threshold=0.45,
        artifacts=[
            artifact_of([parts / "net.xml", parts / "net.bin"], "openvino", "int8", 0.02),
            artifact_of([parts / "net.onnx"], "onnx", "fp16", 0.01),
        ],
        metrics={"val": {"n": 10, "accuracy": 0.5}},
        golden=Golden(seed=3, logits=[[0.1] * 7, [-1.5] * 7]),
        provenance=Provenance(commit="c" * 40, phase="p", seed=1, manifests={"train": "0"}),
    )
    write_bundle(folder, info, [parts / file for file in FILES], {"model_card.md": "# card\n"})
    return info


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(folder: Path, change: Callable[[Content], object]) -> None:
    """Change the content of bundle.json in place, as who makes bundles would."""
    content = json.loads((folder / BUNDLE_FILE).read_text())
    change(content)
    (folder / BUNDLE_FILE).write_text(json.dumps(content))
    write_sums(folder)


def refusal(folder: Path) -> str:
    """The line with which a bundle is refused."""
    with pytest.raises(UserError) as raised:
        open_bundle(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_it_opens_as_it_was_written(tmp_path: Path) -> None:
    info = make(tmp_path / "deep/down/bundle")
    bundle = open_bundle(tmp_path / "deep/down/bundle")
    assert bundle.info == info
    assert bundle.path(info.artifacts[0]).read_bytes() == FILES["net.xml"]
    assert (bundle.folder / "net.bin").read_bytes() == FILES["net.bin"]
    assert (bundle.folder / "model_card.md").read_text() == "# card\n"
    assert bundle.sha256 == hashlib.sha256((bundle.folder / BUNDLE_FILE).read_bytes()).hexdigest()


def test_a_copy_elsewhere_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert open_bundle(tmp_path / "copy").sha256 == open_bundle(folder).sha256


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("flips") / "bundle"
    make(place)
    return place


def flip(path: Path, bit: int) -> bytes:
    """Flip one bit of a file; returns what it held before."""
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    return content


@given(file=st.sampled_from(sorted(EVERY - {SUMS_FILE})), at=st.integers(0, 10**6))
def test_any_flipped_bit_is_refused_by_file(long_lived: Path, file: str, at: int) -> None:
    path = long_lived / file
    before = flip(path, at % (8 * path.stat().st_size))
    try:
        line = refusal(long_lived)
        assert line.startswith(f"{path} does not match its hash") and "copy the bundle" in line
    finally:
        path.write_bytes(before)
    open_bundle(long_lived)


def test_any_bit_of_the_list_of_hashes_that_flips_is_refused_as_its_own(long_lived: Path) -> None:
    """Every one of them: each digit, each name, each space and each line end."""
    path = long_lived / SUMS_FILE
    for bit in range(8 * path.stat().st_size):
        before = flip(path, bit)
        line = refusal(long_lived)
        path.write_bytes(before)
        assert line.startswith(f"{path} is damaged: ") and "copy the bundle" in line, bit
    open_bundle(long_lived)


def test_sha256sum_checks_a_bundle_too(folder: Path) -> None:
    check = ["sha256sum", "--strict", "-c", SUMS_FILE]
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {f"{name}: OK" for name in EVERY - {SUMS_FILE}}
    flip(folder / "model_card.md", 3)
    assert subprocess.run(check, cwd=folder, capture_output=True).returncode != 0


def test_a_bundle_made_before_the_list_is_mended_as_the_message_says(folder: Path) -> None:
    (folder / SUMS_FILE).unlink()
    line = refusal(folder)
    assert line.startswith(f"{folder / SUMS_FILE} is missing from the bundle")
    subprocess.run(line[line.rindex(": (") + 2 :], shell=True, check=True)
    open_bundle(folder)


@pytest.mark.parametrize("stray", ["notes.txt", ".hidden", "folder", "link"])
def test_a_file_that_does_not_belong_is_named(folder: Path, stray: str) -> None:
    if stray == "folder":
        (folder / stray).mkdir()
    elif stray == "link":
        (folder / stray).symlink_to("/nowhere")
    else:
        (folder / stray).touch()
    assert f"{folder / stray} does not belong to the bundle" in (line := refusal(folder))
    assert line.endswith("remove it")


def test_another_hash_for_a_whole_artifact_is_the_fault_of_the_list(folder: Path) -> None:
    """bundle.json says what the artifact must be, and it is."""
    path = folder / SUMS_FILE
    right = hashlib.sha256(FILES["net.bin"]).hexdigest()
    path.write_text(path.read_text().replace(right, hashlib.sha256(b"else").hexdigest()))
    assert refusal(folder).startswith(f"{path} is damaged: its hash of 'net.bin' is wrong")


def test_an_artifact_exchanged_with_the_list_is_still_refused(folder: Path) -> None:
    """bundle.json holds the hash as well; a bundle's identity covers its model."""
    (folder / "net.bin").write_bytes(b"another net")
    write_sums(folder)
    assert f"{folder / 'net.bin'} does not match its hash in {BUNDLE_FILE}" in refusal(folder)


def test_a_renamed_file_is_named_with_its_old_name(folder: Path) -> None:
    (folder / "net.bin").rename(folder / "nets.bin")
    assert "'net.bin' is the file 'nets.bin'" in refusal(folder)


@pytest.mark.parametrize("name", [BUNDLE_FILE, "net.bin", "model_card.md"])
def test_a_line_missing_from_the_list_is_refused(folder: Path, name: str) -> None:
    lines = (folder / SUMS_FILE).read_text().splitlines(keepends=True)
    (folder / SUMS_FILE).write_text("".join(line for line in lines if name not in line))
    line = refusal(folder)
    assert name in line
    # Of a file that bundle.json does not name, nothing tells whether it or the list is wrong.
    assert line.startswith(str(folder / (name if name == "model_card.md" else SUMS_FILE)))


@pytest.mark.parametrize("text", [b"", b"\n", b"\xff" * 40, b"0" * 64 + b"  ../bundle.json\n"])
def test_a_list_that_is_none_is_refused(folder: Path, text: bytes) -> None:
    (folder / SUMS_FILE).write_bytes(text)
    assert refusal(folder).startswith(f"{folder / SUMS_FILE} is damaged: ")


def test_a_file_cut_short_or_gone_is_refused_by_name(folder: Path) -> None:
    (folder / "net.bin").write_bytes(FILES["net.bin"][:-1])
    assert f"{folder / 'net.bin'} does not match its hash" in refusal(folder)
    (folder / "net.bin").unlink()
    assert f"{folder / 'net.bin'} is missing from the bundle" in refusal(folder)


def test_another_word_in_bundle_json_is_another_bundle(folder: Path) -> None:
    before = open_bundle(folder).sha256
    edit(folder, lambda content: content.update(temperature=1.38))
    assert open_bundle(folder).sha256 != before


def test_a_folder_without_bundle_json_is_no_bundle(tmp_path: Path) -> None:
    assert f"no bundle at {tmp_path}" in refusal(tmp_path)
    assert "no bundle at" in refusal(tmp_path / "absent")
    (tmp_path / "file").touch()
    assert "no bundle at" in refusal(tmp_path / "file")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'{"schema_version": 1'])
def test_a_bundle_json_that_is_no_json_is_refused(folder: Path, text: bytes) -> None:
    (folder / BUNDLE_FILE).write_bytes(text)
    write_sums(folder)
    assert f"{folder / BUNDLE_FILE}: not readable as JSON" in refusal(folder)


def _set(*path: str | int, to: Any) -> Callable[[Content], object]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


WRONG = {
    "newer schema": (_set("schema_version", to=2), "schema version 2, this program reads 1"),
    "no schema": (lambda c: c.pop("schema_version"), "schema version None"),
    "order of expressions": (
        _set("expressions", to=sorted(EXPRESSIONS)),
        "this program needs 'angry disgust fear happy sad surprise neutral'",
    ),
    "eight expressions": (_set("expressions", to=[*EXPRESSIONS, "contempt"]), "neutral contempt"),
    "unknown key": (
        lambda c: c.update(temprature=1.0),
        "unknown key 'temprature', did you mean 'temperature'?",
    ),
    "unknown nested key": (
        _set("input", "color", to="grey"),
        "unknown key 'input.color', did you mean 'colour'?",
    ),
    "missing key": (lambda c: c.pop("golden"), "golden: field required"),
    "temperature": (_set("temperature", to=0), "temperature: input should be greater than 0"),
    "temperature nan": (_set("temperature", to=float("nan")), "temperature: "),
    "no artifacts": (_set("artifacts", to=[]), "artifacts: "),
    "unknown format": (_set("artifacts", 0, "format", to="tensorrt"), "artifacts.0.format: "),
    "no hash": (
        _set("artifacts", 0, "sha256", to={"net.bin": "0"}),
        "no hash for 'net.xml'; re-export it",
    ),
    "golden of six": (_set("golden", "logits", to=[[0.0] * 6]), "rows of 7 numbers"),
    "no golden": (_set("golden", "logits", to=[]), "rows of 7 numbers"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_content_is_refused_with_its_key(
    folder: Path, change: Callable[[Content], object], message: str
) -> None:
    edit(folder, change)
    assert message in (line := refusal(folder))
    assert line.startswith(f"{folder / BUNDLE_FILE}: ")


@pytest.mark.parametrize("content", ["[]", "1", "null", '"text"'])
def test_json_that_is_no_object_is_refused(folder: Path, content: str) -> None:
    (folder / BUNDLE_FILE).write_text(content)
    write_sums(folder)
    assert "schema version None" in refusal(folder)


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/hostname", "sub/net.bin", "..", ""])
def test_no_file_outside_the_folder_is_ever_opened(folder: Path, name: str) -> None:
    """Even one whose hash is right: the file a runtime opens lies in the bundle."""
    (folder.parent / "outside.bin").write_bytes(b"outside")
    hashes = {name: hashlib.sha256(b"outside").hexdigest()}
    edit(folder, lambda content: content["artifacts"][0].update(file=name, sha256=hashes))
    assert "is not a plain file name" in (line := refusal(folder)) or "is missing" in line


def test_a_bundle_is_replaced_as_a_whole(folder: Path) -> None:
    before = open_bundle(folder).sha256
    (folder / "left over.txt").touch()
    make(folder, "another model")
    assert open_bundle(folder).sha256 != before
    assert {path.name for path in folder.iterdir()} == EVERY
    assert {path.name for path in folder.parent.iterdir()} == {"parts", "bundle"}


def test_a_bundle_that_would_not_open_is_not_written(folder: Path) -> None:
    before = open_bundle(folder)
    parts = [folder / file for file in ("net.xml", "net.bin")]  # without net.onnx
    with pytest.raises(UserError, match=r"net\.onnx is missing"):
        write_bundle(folder, before.info, parts, {})
    assert open_bundle(folder).sha256 == before.sha256
    assert {path.name for path in folder.parent.iterdir()} == {"parts", "bundle"}


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_bundle_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "home"
    kept = place / "thesis.txt" if kind == "folder" else place
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("years of work")
    with pytest.raises(UserError, match="exists and is not a bundle"):
        make(place)
    assert kept.read_text() == "years of work"


def test_no_tolerance_lets_every_model_pass() -> None:
    with pytest.raises(ValidationError):
        Artifact(format="onnx", precision="fp32", file="a", sha256={"a": "0"}, tolerance=0)


@pytest.mark.parametrize(
    ("colour", "digest"),
    [
        ("grey", "61e96d0ca84b835f3f6597b0b264bb26fdd107edba9ec7eb85c9035ef15a87fb"),
        ("rgb", "cb4feba1dc4f02957ea35c1f2c86e12318fb289bbfce498e2df8f871b98cc9ed"),
    ],
)
def test_golden_inputs_are_the_same_bytes_everywhere_and_for_ever(colour: str, digest: str) -> None:
    """Every bundle ever made holds answers to them."""
    face = FaceInput.model_validate({"size": 48, "colour": colour})
    inputs = golden_inputs(7, 3, face)
    assert inputs.shape == (3, 48, 48, face.channels)
    assert hashlib.sha256(inputs.tobytes()).hexdigest() == digest


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(16, 64))
def test_golden_inputs_are_smooth_and_differ(seed: int, count: int, size: int) -> None:
    inputs = golden_inputs(seed, count, FaceInput(size=size)).astype(int)
    assert inputs.shape == (count, size, size, 1)
    assert np.abs(np.diff(inputs, axis=2)).mean() < 40  # white noise has 85
    assert not (inputs[0] == golden_inputs(seed + 1, 1, FaceInput(size=size))[0]).all()
    assert len({image.tobytes() for image in inputs}) == count
