"""A runtime that fails in the middle of the work is replaced, and that is counted and said."""

import numpy as np
import pytest

from contract.bundle import Bundle, golden_inputs
from contract.errors import UserError
from runtime import choose as choose_module
from runtime import fallback as fallback_module
from runtime import golden
from runtime.choose import Chosen, choose
from runtime.errors import GoldenError, SessionError
from runtime.fallback import FallbackSession
from runtime.session import Backend, open_session
from tests.models import make_float_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_float_bundle(tmp_path_factory.mktemp("bundle") / "b")


class Breaks:
    """A session that works until it is told to break."""

    backend: Backend = "openvino"

    def __init__(self, device: str = "CPU") -> None:
        self.device = device
        self.broken = False
        self.closed = False

    def prepare(self, count: int) -> None:
        """Ready for any."""

    def run(self, faces: np.ndarray) -> np.ndarray:
        if self.broken or self.closed:
            raise SessionError("student.onnx: OpenVINO failed: device lost")
        return np.zeros((len(faces), 7), np.float32)

    def close(self) -> None:
        self.closed = True


def wrapped(bundle: Bundle, first: Breaks) -> FallbackSession:
    chosen = Chosen(first, bundle.info.artifacts[0], 1.0, ())
    return FallbackSession(bundle, chosen, threads=1)


def test_the_same_faces_are_answered_by_the_next_runtime(bundle: Bundle) -> None:
    first = Breaks()
    session = wrapped(bundle, first)
    faces = golden_inputs(3, 3, bundle.info.input)
    assert not session.run(faces).any() and not session.notes
    first.broken = True
    answer = session.run(faces)
    other = open_session(bundle, bundle.info.artifacts[0], "onnxruntime", threads=1)
    np.testing.assert_allclose(answer, other.run(faces), atol=1e-5)
    assert (session.backend, session.failures, first.closed) == ("onnxruntime", 1, True)
    (note,) = session.notes
    assert "device lost" in note and "student.onnx on onnxruntime has taken over" in note
    session.run(faces)
    assert session.failures == 1, "it stays with what works"
    session.close()


def test_a_lost_device_goes_to_the_cpu_of_the_same_runtime(bundle: Bundle) -> None:
    first = Breaks(device="GPU")
    session = wrapped(bundle, first)
    first.broken = True
    session.run(golden_inputs(3, 1, bundle.info.input))
    assert (session.backend, session.device) == ("openvino", "CPU")
    session.close()


def test_what_answers_otherwise_does_not_take_over(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> float:
        raise GoldenError("golden check failed")

    monkeypatch.setattr(golden, "check", refuse)
    first = Breaks()
    session = wrapped(bundle, first)
    first.broken = True
    for _ in range(3):
        with pytest.raises(SessionError, match="device lost"):
            session.run(golden_inputs(3, 1, bundle.info.input))
    assert session.failures == 3
    assert [note for note in session.notes if "nothing is left" in note] == [session.notes[-1]]
    assert any("golden check failed" in note for note in session.notes)


def test_a_closed_session_is_not_a_fault_to_recover_from(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback_module, "open_session", None)
    session = wrapped(bundle, Breaks())
    session.close()
    with pytest.raises(SessionError):
        session.run(golden_inputs(3, 1, bundle.info.input))
    assert session.failures == 0


def test_a_device_that_is_not_there_is_replaced_by_the_cpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose_module, "openvino_devices", lambda: ("CPU",))
    chosen = choose(bundle, threads=1, device="NPU")
    assert chosen.session.device == "CPU"
    (note,) = chosen.notes
    assert "runtime.device" in note and "CPU instead" in note
    chosen.session.close()


def test_a_device_on_which_nothing_works_is_replaced_by_the_cpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO is told to use a GPU; on a box that has one this is a device like any other."""
    monkeypatch.setattr(choose_module, "openvino_devices", lambda: ("CPU", "GPU.7"))
    chosen = choose(bundle, threads=1, device="GPU", backend="openvino")
    assert chosen.session.device == "CPU"
    assert [a.device for a in chosen.attempts if a.status == "failed"] == ["GPU.7"]
    assert all("GPU.7" in note for note in chosen.notes)
    chosen.session.close()
    also = choose(bundle, threads=1, device="auto")
    assert also.session.device == "CPU"
    also.session.close()


def test_no_fall_back_hides_that_nothing_works(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> float:
        raise GoldenError("golden check failed")

    monkeypatch.setattr(golden, "check", refuse)
    with pytest.raises(UserError, match="no artifact of this bundle works here"):
        choose(bundle, threads=1, device="NPU")
