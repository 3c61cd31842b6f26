"""The same answers on a CPU without VNNI: shown where it is so, and not claimed where it is not."""

import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from contract.bundle import Bundle, artifact_of
from quantize import portability
from quantize.candidates import OPENVINO, Candidate
from quantize.graph import float_model
from quantize.onnx_int8 import quantize_onnx
from quantize.openvino_int8 import quantize_openvino
from quantize.portability import EMULATOR, check
from quantize.report import Portability
from quantize.rounding import moments_of
from tests.models import CLASSES, grating, make_float_bundle

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="compares kinds of x86-64 CPUs, and this is none"
)
MODERN = "flags\t\t: sse2 avx2 avx512_vnni\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_float_bundle(tmp_path_factory.mktemp("float") / "bundle")


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.stack([grating(n % CLASSES, rng)[..., None] for n in range(14)])


@pytest.fixture(scope="module")
def onnx_int8(
    bundle: Bundle, faces: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Sequence[Path]:
    graph = bundle.path(bundle.info.artifacts[0])
    whole = Candidate("whole", "onnxruntime", range_quantile=0.97)
    moments = moments_of(float_model(graph), faces)
    file = tmp_path_factory.mktemp("onnx") / "int8.onnx"
    return quantize_onnx(graph, faces, file, whole, moments)


@pytest.fixture
def modern(tmp_path: Path) -> Path:
    """What a CPU with VNNI says of itself, whatever this one can do."""
    file = tmp_path / "cpuinfo"
    file.write_text(MODERN)
    return file


def needs_vnni() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    if "avx2" not in flags or not {"avx512_vnni", "avx_vnni"} & set(flags):
        pytest.skip("this CPU has no VNNI: there is nothing to compare AVX2 with")


def int8_bundle(bundle: Bundle, files: Sequence[Path]) -> Bundle:
    """`bundle` with these files as its one INT8 artifact, beside the float one."""
    form = "openvino" if files[0].suffix == ".xml" else "onnx"
    artifact = artifact_of(list(files), form, "int8", tolerance=0.05)
    info = bundle.info.model_copy(update={"artifacts": [artifact, *bundle.info.artifacts]})
    return Bundle(files[0].parent, info, "")


def verdict(bundle: Bundle, **settings: object) -> Portability:
    """The verdict on the one INT8 artifact."""
    (found,) = check(bundle, 1, **settings)  # type: ignore[arg-type]
    return found


def emulator(folder: Path, script: str) -> str:
    """A program that stands where the emulator does: `EMULATOR -cpu Haswell PROGRAM …`."""
    file = folder / "emulator"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def ir_of_products(xml: Path, weight: int) -> Sequence[Path]:
    """IR whose one INT8 layer multiplies values up to 255 with `weight` and with nothing else.

    Sixteen copies of the picture, brightened, and for each class a sum over fewer of them. Two
    products of 255 and 127 are 64,770, more than the 32,767 that 16 bits hold; of 255 and 64 they
    are 32,640.
    """
    faces = ops.parameter([-1, 48, 48, 1], np.uint8, name="faces")
    picture = ops.transpose(ops.convert(faces, "f32"), [0, 3, 1, 2])
    ones = np.ones((16, 1, 1, 1), np.float32)
    unit = ([1, 1], [0, 0], [0, 0], [1, 1])
    copies = ops.relu(ops.convolution(picture, ones, *unit))
    bounds = [np.float32(value) for value in (0, 100, 0, 100)]
    bright = ops.fake_quantize(copies, *bounds, 256)
    weights = np.zeros((CLASSES, 16, 1, 1), np.int8)
    for label in range(CLASSES):
        weights[label, : 16 - 2 * label] = weight
    scale = np.float32(6 / (16 * 100 * weight))
    products = ops.multiply(ops.convert(ops.constant(weights), "f32"), scale)
    maps = ops.convolution(bright, products, *unit)
    model = ov.Model([ops.reduce_mean(maps, np.array([2, 3]), False)], [faces], "products")
    ov.save_model(model, xml, compress_to_fp16=False)
    return [xml, xml.with_suffix(".bin")]


def test_openvino_int8_answers_the_same_with_avx2_alone(
    bundle: Bundle, faces: np.ndarray, tmp_path: Path
) -> None:
    needs_vnni()
    graph = bundle.path(bundle.info.artifacts[0])
    rows = (faces, np.arange(len(faces)) % CLASSES)
    moments = moments_of(float_model(graph), faces)
    files = quantize_openvino(graph, faces, tmp_path / "int8.xml", OPENVINO[0], rows, 1.0, moments)
    found = verdict(int8_bundle(bundle, files))
    assert (found.status, found.artifact, found.same_top) == ("pass", "int8.xml", 1.0)
    assert found.dp_max is not None and found.dp_max <= 0.01
    assert "avx2" in found.detail and "I8" in found.detail and "avx512" not in found.detail


@pytest.mark.parametrize(("weight", "expected"), [(127, "fail"), (64, "pass")])
def test_sums_that_saturate_are_found(
    bundle: Bundle, tmp_path: Path, weight: int, expected: str
) -> None:
    needs_vnni()
    found = verdict(int8_bundle(bundle, ir_of_products(tmp_path / "int8.xml", weight)))
    assert found.status == expected, found
    assert found.dp_max is not None
    assert found.dp_max > 0.05 if expected == "fail" else found.dp_max < 1e-4


def test_an_artifact_that_computes_in_float_proves_nothing(
    bundle: Bundle, tmp_path: Path, modern: Path
) -> None:
    xml = tmp_path / "int8.xml"
    model = ov.Core().read_model(bundle.path(bundle.info.artifacts[0]))
    ov.save_model(model, xml, compress_to_fp16=False)
    files = [xml, xml.with_suffix(".bin")]
    found = verdict(int8_bundle(bundle, files), cpuinfo=modern)
    assert (found.status, found.dp_max) == ("fail", None)
    assert "no INT8 kernel of AVX2 ran" in found.detail


def test_onnx_int8_answers_the_same_on_a_haswell(bundle: Bundle, onnx_int8: Sequence[Path]) -> None:
    if shutil.which(EMULATOR) is None:
        pytest.skip(f"needs {EMULATOR}; Debian has it in the package qemu-user-static")
    needs_vnni()
    found = verdict(int8_bundle(bundle, onnx_int8))
    assert (found.status, found.same_top) == ("pass", 1.0), found
    assert found.dp_max is not None and found.dp_max <= 0.01


def test_other_answers_fail(
    bundle: Bundle, onnx_int8: Sequence[Path], tmp_path: Path, modern: Path
) -> None:
    """A machine that opens another model in place of the one it is given."""
    other = make_float_bundle(tmp_path / "other", seed=9, temperature=1.0)
    graph = other.path(other.info.artifacts[0])
    script = f'shift 2; exec "$1" "$2" "$3" "$4" {graph} "$6" "$7" "$8"'
    found = verdict(
        int8_bundle(bundle, onnx_int8), emulator=emulator(tmp_path, script), cpuinfo=modern
    )
    assert found.status == "fail"
    assert found.dp_max is not None and found.dp_max > 0.01


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo illegal instruction >&2; exit 132", "illegal instruction"),
        ('echo "TCG doesn\'t support requested feature: EBX.avx2 [bit 5]" >&2', "AVX2"),
        ("exec sleep 60", "had not answered"),
    ],
)
def test_an_emulator_that_cannot_do_it_says_nothing_of_the_model(
    bundle: Bundle,
    onnx_int8: Sequence[Path],
    tmp_path: Path,
    modern: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    reason: str,
) -> None:
    monkeypatch.setattr(portability, "TIME_LIMIT_S", 1.0)
    found = verdict(
        int8_bundle(bundle, onnx_int8), emulator=emulator(tmp_path, script), cpuinfo=modern
    )
    assert (found.status, found.same_top, found.dp_max) == ("skipped", None, None)
    assert reason in found.detail


def test_without_the_emulator_the_reason_names_its_package(
    bundle: Bundle, onnx_int8: Sequence[Path], modern: Path
) -> None:
    found = verdict(int8_bundle(bundle, onnx_int8), emulator="no-such-program", cpuinfo=modern)
    assert found.status == "skipped"
    assert "qemu-user-static" in found.detail


@pytest.mark.parametrize(
    ("flags", "reason"), [("sse2 avx", "no AVX2"), ("sse2 avx avx2", "no VNNI")]
)
def test_a_cpu_with_nothing_to_compare_claims_nothing(
    bundle: Bundle, onnx_int8: Sequence[Path], tmp_path: Path, flags: str, reason: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags\t\t: {flags}\n")
    found = verdict(int8_bundle(bundle, onnx_int8), cpuinfo=cpuinfo)
    assert found.status == "skipped"
    assert reason in found.detail


def test_float_artifacts_are_not_checked(bundle: Bundle) -> None:
    assert check(bundle, 1) == ()
