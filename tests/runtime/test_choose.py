"""The choice by measurement: its rule, its fall-backs, its memory."""

import json
import logging
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import Artifact, Bundle, open_bundle
from contract.errors import UserError
from runtime import choose as choose_module
from runtime import golden, machine
from runtime.choose import Candidate, Chosen, choose, fastest
from runtime.errors import GoldenError
from runtime.session import BACKENDS, Session, open_session
from runtime.timing import interleaved_ms
from tests.models import add_artifact, make_float_bundle, rehash, tiny_graph


class FakeSession:
    """A session without a runtime; every run takes `cost` seconds of the injected clock."""

    backend = "openvino"
    device = "CPU"

    def __init__(self, clock: list[float] | None = None, cost: float = 0.0) -> None:
        self.clock, self.cost = clock if clock is not None else [0.0], cost

    def run(self, faces: np.ndarray) -> np.ndarray:
        self.clock[0] += self.cost
        return np.zeros((len(faces), 7), np.float32)

    def close(self) -> None:
        pass


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_float_bundle(tmp_path / "bundle")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Session]]:
    """Every session `choose` opens; a closed one refuses to run."""
    sessions: list[Session] = []

    def noting(*args: object) -> Session:
        sessions.append(open_session(*args))  # type: ignore[arg-type]
        return sessions[-1]

    monkeypatch.setattr(choose_module, "open_session", noting)
    yield sessions
    for session in sessions:
        session.close()


def alive(sessions: list[Session], bundle: Bundle) -> list[Session]:
    face = np.zeros((1, bundle.info.input.size, bundle.info.input.size, 1), np.uint8)

    def runs(session: Session) -> bool:
        try:
            return session.run(face).shape == (1, 7)
        except Exception:
            return False

    return [session for session in sessions if runs(session)]


def with_int8(bundle: Bundle, scale: float = 1.0) -> Bundle:
    """A second artifact that calls itself INT8; with another scale it is another model."""
    return add_artifact(bundle, tiny_graph(bundle.info.input, scale=scale), "int8.onnx", "int8")


def candidate(precision: str, quickest_ms: float) -> Candidate:
    artifact = {"format": "onnx", "precision": precision, "file": "x", "sha256": {"x": ""}}
    return Candidate(
        Artifact.model_validate({**artifact, "tolerance": 1}),
        FakeSession(),  # type: ignore[arg-type]
        golden_error=0.0,
        quickest_ms=quickest_ms,
        latency_ms=99.0 - quickest_ms,
    )


@pytest.mark.parametrize(
    ("int8", "floats", "wanted"),
    [
        ([2.0, 1.5], [3.0], ("int8", 1.5)),
        ([2.0], [1.9, 5.0], ("int8", 2.0)),  # within the margin: INT8 stays
        ([2.0], [1.7, 5.0], ("fp16", 1.7)),  # clearly slower than float
        ([], [3.0, 2.0], ("fp16", 2.0)),
    ],
)
def test_the_fastest_int8_is_kept_unless_float_is_clearly_faster(
    int8: list[float], floats: list[float], wanted: tuple[str, float]
) -> None:
    best = fastest([candidate("int8", t) for t in int8] + [candidate("fp16", t) for t in floats])
    assert (best.artifact.precision, best.quickest_ms) == wanted


def test_one_session_stays_open_and_every_attempt_is_recorded(
    bundle: Bundle, opened: list[Session]
) -> None:
    chosen = choose(with_int8(bundle), threads=1)
    assert alive(opened, bundle) == [chosen.session]
    assert [(a.file, a.backend) for a in chosen.attempts if a.status == "kept"] == [
        (chosen.artifact.file, chosen.session.backend)
    ]
    assert {(a.file, a.backend) for a in chosen.attempts} == {
        (file, backend) for file in ("int8.onnx", "student.onnx") for backend in BACKENDS
    }
    assert all(a.latency_ms and a.latency_ms > 0 for a in chosen.attempts)
    assert all(a.golden_error is not None and a.golden_error < 0.001 for a in chosen.attempts)
    assert all("\n" not in a.reason for a in chosen.attempts)
    assert chosen.notes == ()


def test_altered_weights_fall_back_to_the_float_with_the_reason(
    bundle: Bundle, opened: list[Session], caplog: pytest.LogCaptureFixture
) -> None:
    # A library another test imported into this process may have quietened all logging.
    caplog.set_level(logging.WARNING, logger=choose_module.log.name)
    altered = with_int8(bundle, scale=0.5)
    chosen = choose(altered, threads=1)
    assert chosen.artifact.file == "student.onnx"
    assert alive(opened, bundle) == [chosen.session]
    assert len(chosen.notes) == 2
    for note in chosen.notes:
        assert "int8.onnx" in note
        assert "golden check failed" in note
        assert note in caplog.text


def test_a_bundle_whose_only_model_was_altered_and_rehashed_is_refused(bundle: Bundle) -> None:
    graph = tiny_graph(bundle.info.input, seed=1, scale=0.3)
    (bundle.folder / "student.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match="does not match its hash"):
        open_bundle(bundle.folder)
    forged = rehash(bundle.folder)
    with pytest.raises(UserError, match=r"no artifact of this bundle works here.*golden check"):
        choose(forged, threads=1)


def test_an_artifact_no_runtime_opens_falls_back(bundle: Bundle) -> None:
    broken = with_int8(bundle)
    (bundle.folder / "int8.onnx").write_bytes(b"\x08\x08garbage")
    chosen = choose(rehash(broken.folder), threads=1)
    assert chosen.artifact.file == "student.onnx"
    assert len(chosen.notes) == 2


def test_a_backend_can_be_asked_for(bundle: Bundle) -> None:
    for backend in BACKENDS:
        chosen = choose(bundle, threads=1, backend=backend)
        assert chosen.session.backend == backend
        assert len(chosen.attempts) == 1
        chosen.session.close()


def test_answers_that_are_not_numbers_fail_the_golden_check(bundle: Bundle) -> None:
    class Broken(FakeSession):
        def run(self, faces: np.ndarray) -> np.ndarray:
            return np.full((len(faces), 7), np.nan, np.float32)

    assert golden.measure(Broken(), bundle) == math.inf  # type: ignore[arg-type]
    with pytest.raises(GoldenError):
        golden.check(Broken(), bundle, bundle.info.artifacts[0])  # type: ignore[arg-type]


def test_the_next_start_opens_only_what_was_kept(
    bundle: Bundle, opened: list[Session], tmp_path: Path
) -> None:
    both = with_int8(bundle)
    first = choose(both, threads=1, cache=tmp_path / "cache")
    opened.clear()
    again = choose(both, threads=1, cache=tmp_path / "cache")
    assert len(opened) == 1
    assert again.remembered and not first.remembered
    assert again.artifact == first.artifact
    assert again.session.backend == first.session.backend
    assert again.latency_ms == first.latency_ms
    opened.clear()
    other_threads = choose(both, threads=2, cache=tmp_path / "cache")
    assert not other_threads.remembered
    assert choose(both, threads=1, cache=tmp_path / "cache").remembered


def remembered_file(cache: Path) -> Path:
    return cache / "choice.json"


def test_a_remembered_choice_that_fails_is_measured_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = with_int8(bundle)
    kept = choose(both, threads=1, cache=tmp_path / "cache").session.backend

    def failing_there(session: Session, bundle: Bundle, artifact: object) -> float:
        if session.backend == kept:
            raise GoldenError("golden check failed")
        return 0.0

    monkeypatch.setattr(golden, "check", failing_there)
    chosen = choose(both, threads=1, cache=tmp_path / "cache")
    assert not chosen.remembered
    assert chosen.session.backend != kept
    assert chosen.notes


def test_a_choice_beside_a_fault_is_not_remembered(bundle: Bundle, tmp_path: Path) -> None:
    altered = with_int8(bundle, scale=0.5)
    for _ in range(2):
        chosen = choose(altered, threads=1, cache=tmp_path / "cache")
        assert not chosen.remembered
        assert chosen.notes
        chosen.session.close()


def damage_text(file: Path) -> None:
    file.write_text("{ not json")


def damage_entry(file: Path) -> None:
    file.write_text(json.dumps({key: ["?"] for key in json.loads(file.read_text())}))


def name_another_file(file: Path) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: {**v, "file": "../x"} for k, v in content.items()}))


@pytest.mark.parametrize("damage", [damage_text, damage_entry, name_another_file])
def test_a_damaged_memory_is_no_memory(bundle: Bundle, tmp_path: Path, damage: object) -> None:
    cache = tmp_path / "cache"
    choose(bundle, threads=1, cache=cache)
    damage(remembered_file(cache))  # type: ignore[operator]
    assert not choose(bundle, threads=1, cache=cache).remembered
    assert choose(bundle, threads=1, cache=cache).remembered


def test_a_cache_that_cannot_be_written_costs_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chosen: Chosen = choose(bundle, threads=1, cache=tmp_path / "file" / "cache")
    assert chosen.session.run(np.zeros((1, 48, 48, 1), np.uint8)).shape == (1, 7)


def test_without_onnxruntime_the_choice_degrades(bundle: Bundle) -> None:
    """As on a board for which there is no such wheel: a fresh process where it cannot import."""
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from pathlib import Path\n"
        "from contract.bundle import open_bundle\n"
        "from runtime.choose import choose\n"
        f"chosen = choose(open_bundle(Path({str(bundle.folder)!r})), threads=1)\n"
        "print(chosen.session.backend, *(a.status for a in chosen.attempts), len(chosen.notes))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["openvino", "kept", "unavailable", "0"], done.stderr


def test_choosing_imports_neither_torch_nor_pandas(bundle: Bundle) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom contract.bundle import open_bundle\n"
        "from runtime.choose import choose\n"
        f"choose(open_bundle(Path({str(bundle.folder)!r})), threads=1)\n"
        "print(sorted({'torch', 'pandas', 'nncf', 'onnx'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_timing_is_interleaved_warm_and_within_its_budget() -> None:
    clock = [0.0]
    fast, slow = FakeSession(clock, 0.001), FakeSession(clock, 0.004)
    face = np.zeros((1, 48, 48, 1), np.uint8)
    times = interleaved_ms(
        [fast, slow],  # type: ignore[list-item]
        face,
        rounds=100,
        burst=4,
        budget_s=0.06,
        clock=lambda: clock[0],
    )
    # A round takes 5 × 1 ms + 5 × 4 ms: the third is the one in which 60 ms have passed.
    assert [len(each) for each in times] == [12, 12]
    np.testing.assert_allclose(times[0], 1.0)
    np.testing.assert_allclose(times[1], 4.0)


def test_the_cpu_is_told_apart_by_its_flags(tmp_path: Path) -> None:
    base = "processor\t: 0\nmodel name\t: X\nflags\t\t: sse avx2\ncpu MHz\t: {}\n\n"
    for name, text in {
        "a": base.format(1000),
        "b": base.format(2000) + base.format(2000).replace("processor\t: 0", "processor\t: 1"),
        "c": base.format(1000).replace("avx2", "avx2 avx512_vnni"),
    }.items():
        (tmp_path / name).write_text(text)
    a, b, c = (machine.cpu_model(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c
    assert machine.cpu_model(tmp_path / "absent")
