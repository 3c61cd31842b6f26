"""What is read of a session log is what was written, to the last bit, as far as it is whole."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import UserError
from contract.expressions import EXPRESSIONS, LOW_QUALITY, UNCERTAIN
from contract.telemetry import FaceResult, FrameResult
from edge.offline.session_log import LoggedFace, SessionFrame, read_session
from edge.sinks.session_csv import STAGES, VERSION
from tests.edge.results import a_face, a_result
from tests.edge.test_session_csv import write

NUMBER = st.floats(allow_nan=False, allow_infinity=False)
PROBABILITIES = st.tuples(*[st.floats(0, 1)] * len(EXPRESSIONS))
QUALITY = st.sampled_from(("too small", 'dark, "very" dark', "über 30° turned"))


@st.composite
def a_logged_face(draw: st.DrawFn, track: int) -> FaceResult:
    quality = draw(st.one_of(st.just(""), QUALITY))
    return FaceResult(
        track=track,
        box=draw(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER)),
        detector_score=draw(NUMBER),
        probabilities=() if quality else draw(PROBABILITIES),
        smoothed=(0.0,) * 7,
        top=draw(st.sampled_from(EXPRESSIONS)),
        label=draw(st.sampled_from((*EXPRESSIONS, UNCERTAIN, LOW_QUALITY))),
        confidence=draw(NUMBER),
        held_s=draw(NUMBER),
        quality=quality,
    )


@st.composite
def results(draw: st.DrawFn) -> list[FrameResult]:
    """Frames with any number of faces, with gaps between their numbers and in their stages."""
    found, sequence, mono_ns = [], 0, draw(st.integers(0, 2**60))
    for _ in range(draw(st.integers(0, 6))):
        sequence += draw(st.integers(1, 100))
        mono_ns += draw(st.integers(1, 10**10))
        tracks = draw(st.lists(st.integers(1, 10**6), max_size=3, unique=True))
        stages = draw(st.dictionaries(st.sampled_from(STAGES), NUMBER))
        found.append(
            FrameResult(
                sequence=sequence,
                mono_ns=mono_ns,
                utc_ns=draw(st.integers(0, 2**62)),
                width=draw(st.integers(1, 10**4)),
                height=draw(st.integers(1, 10**4)),
                faces=tuple(draw(a_logged_face(track)) for track in tracks),
                stages_ms=stages,
                e2e_ms=draw(NUMBER),
                detected=draw(st.booleans()),
            )
        )
    return found


def same_face(logged: LoggedFace, face: FaceResult) -> bool:
    p = () if logged.probabilities is None else tuple(logged.probabilities.tolist())
    names = ("track", "box", "detector_score", "quality", "label", "top", "confidence", "held_s")
    # repr, for 0.0 and -0.0 are equal and not the same.
    return repr(p) == repr(face.probabilities) and all(
        repr(getattr(logged, name)) == repr(getattr(face, name)) for name in names
    )


def same(frame: SessionFrame, result: FrameResult) -> bool:
    names = ("sequence", "mono_ns", "utc_ns", "width", "height", "detected", "e2e_ms")
    return (
        all(repr(getattr(frame, name)) == repr(getattr(result, name)) for name in names)
        and {k: repr(v) for k, v in frame.stages_ms.items()}
        == {k: repr(v) for k, v in result.stages_ms.items()}
        and len(frame.faces) == len(result.faces)
        and all(map(same_face, frame.faces, result.faces))
    )


@settings(max_examples=60)
@given(written=results(), cut=st.integers(0, 10**6))
def test_any_results_are_read_as_they_were_and_any_cut_leaves_whole_rows(
    written: list[FrameResult], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.csv"
    write(file, written, camera="demo", smoothing={"tau_s": 0.1})
    session = read_session(file)
    assert session.header["smoothing"] == {"tau_s": 0.1}
    assert len(session.frames) == len(written) and all(map(same, session.frames, written))

    content = file.read_bytes()
    start = content.index(b"\n", content.index(b"\n") + 1) + 1
    end = start + cut % (len(content) - start + 1)
    file.write_bytes(content[:end])
    rows = content[start:end].count(b"\n")
    frames = read_session(file).frames
    assert sum(max(1, len(frame.faces)) for frame in frames) == rows
    for frame, result in zip(frames, written, strict=False):
        assert all(map(same_face, frame.faces, result.faces[: len(frame.faces)]))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda t: "", "no session log"),
        (lambda t: "path,label\n", "no session log"),
        (lambda t: t.replace(f'"version": {VERSION}', '"version": 1', 1), "version 1, and this"),
        (lambda t: t.replace('{"version', "{version", 1), "line 1: the header is damaged"),
        (lambda t: t.replace("detector_score", "score", 1), "line 2: not the columns"),
        (lambda t: t + "1,2,3\n", "line 5: 3 columns instead of"),
        (lambda t: re.sub(r"\n7,", "\nseven,", t), "line 3: invalid literal"),
        (lambda t: re.sub(r"0\.9,", "much,", t), "line 3: could not convert"),
    ],
    ids=range(8),
)
def test_a_file_that_is_no_session_is_told_with_its_line(
    tmp_path: Path, damage: Callable[[str], str], says: str
) -> None:
    file = tmp_path / "session.csv"
    write(file, [a_result(7, 1, a_face()), a_result(8, 2)])
    file.write_text(damage(file.read_text()))
    with pytest.raises(UserError) as error:
        read_session(file)
    assert str(error.value).startswith(str(file)) and says in str(error.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "image.csv").write_bytes(b"\xff\xd8\xff\n")
    for file in (tmp_path / "none.csv", tmp_path, tmp_path / "image.csv"):
        with pytest.raises(UserError, match="cannot be read as a session log") as error:
            read_session(file)
        assert str(file) in str(error.value)
