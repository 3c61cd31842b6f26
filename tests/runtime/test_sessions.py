"""One template for every runtime: the same artifact must behave the same in all of them."""

import glob
import subprocess
import sys
import time
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import onnx
import pytest

from contract.bundle import Bundle, golden_inputs
from contract.faces import FaceInput
from runtime import openvino_session
from runtime.errors import SessionError, UnavailableError
from runtime.session import ACCELERATOR_NODES, BACKENDS, Backend, Session, open_session
from tests.models import add_artifact, make_float_bundle, reference_logits, tiny_graph


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_float_bundle(tmp_path_factory.mktemp("bundle") / "float")


@pytest.fixture(params=BACKENDS)
def session(bundle: Bundle, request: pytest.FixtureRequest) -> Session:
    opened = open_session(bundle, bundle.info.artifacts[0], request.param, threads=1)
    request.addfinalizer(opened.close)
    return opened


def faces(count: int, bundle: Bundle) -> np.ndarray:
    return golden_inputs(3, count, bundle.info.input)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 13])
def test_a_batch_answers_as_single_faces_do_and_as_the_graph_says(
    session: Session, bundle: Bundle, count: int
) -> None:
    batch = faces(count, bundle)
    logits = session.run(batch)
    singles = np.concatenate([session.run(face[None]) for face in batch])
    expected = reference_logits(onnx.load(bundle.folder / "student.onnx"), batch)
    assert logits.shape == (count, 7)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, singles, atol=1e-4)
    np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_an_answer_is_not_overwritten_by_the_next_one(session: Session, bundle: Bundle) -> None:
    first, second = faces(2, bundle)
    kept = session.run(first[None])
    before = kept.copy()
    session.run(second[None])
    np.testing.assert_array_equal(kept, before)


def test_a_view_into_a_larger_array_is_read_rightly(session: Session, bundle: Bundle) -> None:
    four = faces(4, bundle)
    np.testing.assert_allclose(
        session.run(four[::2, :, ::-1]), session.run(four[::2, :, ::-1].copy()), atol=1e-5
    )


def test_a_closed_session_says_so(bundle: Bundle, session: Session) -> None:
    session.close()
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.run(faces(1, bundle))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rgb_bundles_open(tmp_path: Path, backend: Backend) -> None:
    bundle = make_float_bundle(tmp_path / "rgb", size=40, colour="rgb")
    session = open_session(bundle, bundle.info.artifacts[0], backend, threads=2)
    assert session.run(faces(3, bundle)).shape == (3, 7)
    session.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_of_another_input_size_is_refused(tmp_path: Path, backend: Backend) -> None:
    bundle = make_float_bundle(tmp_path / "b", size=48)
    other = add_artifact(bundle, tiny_graph(FaceInput(size=64)), "other.onnx", "fp32")
    with pytest.raises(SessionError, match=r"other\.onnx.*48×48×1"):
        open_session(other, other.info.artifacts[0], backend, threads=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_is_no_graph_is_one_line(bundle: Bundle, tmp_path: Path, backend: str) -> None:
    (tmp_path / "student.onnx").write_bytes(b"not a graph")
    broken = Bundle(tmp_path, bundle.info, "")
    with pytest.raises(SessionError) as caught:
        open_session(broken, bundle.info.artifacts[0], backend, threads=1)  # type: ignore[arg-type]
    assert "student.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_openvino_ir_is_for_openvino_only(bundle: Bundle) -> None:
    artifact = bundle.info.artifacts[0].model_copy(update={"format": "openvino"})
    with pytest.raises(UnavailableError, match="onnxruntime does not read OpenVINO IR"):
        open_session(bundle, artifact, "onnxruntime", threads=1)


def test_openvino_compiles_larger_batches_in_the_background(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []
    compile_size = openvino_session.OpenVinoSession._compile

    def noting(self: openvino_session.OpenVinoSession, size: int) -> object:
        request = compile_size(self, size)
        compiled.append(size)
        return request

    monkeypatch.setattr(openvino_session.OpenVinoSession, "_compile", noting)
    session = open_session(bundle, bundle.info.artifacts[0], "openvino", threads=1)
    session.run(faces(1, bundle))
    assert compiled == [1]
    limit = time.monotonic() + 20
    while len(compiled) < 3 and time.monotonic() < limit:
        session.run(faces(4, bundle))
        session.run(faces(3, bundle))
    session.close()
    assert sorted(compiled) == [1, 2, 4]


def test_openvino_goes_on_where_a_larger_batch_cannot_be_compiled(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_size = openvino_session.OpenVinoSession._compile

    def failing(self: openvino_session.OpenVinoSession, size: int) -> object:
        if size > 1:
            raise RuntimeError("out of memory")
        return compile_size(self, size)

    monkeypatch.setattr(openvino_session.OpenVinoSession, "_compile", failing)
    session = open_session(bundle, bundle.info.artifacts[0], "openvino", threads=1)
    for _ in range(3):
        assert session.run(faces(9, bundle)).shape == (9, 7)
    session.close()


def test_openvino_survives_a_damaged_and_an_unusable_model_cache(
    bundle: Bundle, tmp_path: Path
) -> None:
    artifact = bundle.info.artifacts[0]
    expected = open_session(bundle, artifact, "onnxruntime", 1).run(faces(2, bundle))
    cache = tmp_path / "cache"
    open_session(bundle, artifact, "openvino", 1, cache).close()
    entries = [path for path in cache.rglob("*") if path.is_file()]
    assert entries
    for path in entries:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:100])
    (tmp_path / "file").write_text("")
    for folder in (cache, tmp_path / "file" / "cache"):
        session = open_session(bundle, artifact, "openvino", 1, folder)
        np.testing.assert_allclose(session.run(faces(2, bundle)), expected, atol=1e-3)
        session.close()


DEVICES = """
import sys
import openvino
from runtime import session

if sys.argv[1:]:
    session.ACCELERATOR_NODES = (sys.argv[1],)
found = session.openvino_devices()
loaded = "openvino_intel_gpu_plugin" in open("/proc/self/maps").read()
assert set(found) == set(openvino.Core().available_devices), found
print(loaded)
"""


SIGNALLED = """
import os, signal, sys
from pathlib import Path
from contract.bundle import open_bundle
from runtime.session import open_session

bundle = open_bundle(Path(sys.argv[1]))
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
sessions = [open_session(bundle, bundle.info.artifacts[0], "openvino", 1) for _ in range(2)]
while sessions:
    sessions.pop(0).close()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_handled_whatever_sessions_were_closed_before(bundle: Bundle) -> None:
    command = [sys.executable, "-c", SIGNALLED, str(bundle.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "handled\n" and done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="device nodes are Linux's")
def test_plugins_of_devices_without_a_node_stay_out_of_memory_and_none_is_missed() -> None:
    def plugin_was_loaded(*node: str) -> str:
        command = [sys.executable, "-c", DEVICES, *node]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    if find_library("OpenCL") is None:
        pytest.skip("without libOpenCL.so.1 OpenVINO cannot load its GPU plugin anyway")
    assert plugin_was_loaded("/dev/null") == "True"  # As if that were a GPU's.
    assert plugin_was_loaded() == str(any(map(glob.glob, ACCELERATOR_NODES)))
