"""Events tell what happened to people in view: no more, no less, and in order."""

from hypothesis import given
from hypothesis import strategies as st

from edge.sinks.track_events import LEFT_AFTER_S, TrackEvents
from tests.edge.results import SECOND, a_face, a_result


def kinds(events: TrackEvents, second: float, **labels: str) -> list[tuple[str, int]]:
    """The events of a frame in which `t1="happy"` is a face of track 1 with that label."""
    faces = [a_face(int(name[1:]), label=label) for name, label in labels.items()]
    found = events.update(a_result(0, round(second * SECOND), *faces))
    return [(event.kind, event.track) for event in found]


def test_a_person_appears_changes_and_leaves() -> None:
    events = TrackEvents()
    assert kinds(events, 0.0) == []
    assert kinds(events, 1.0, t1="happy") == [("appeared", 1)]
    assert kinds(events, 1.1, t1="happy", t2="sad") == [("appeared", 2)]
    assert kinds(events, 1.2, t1="uncertain", t2="sad") == [("changed", 1)]
    assert kinds(events, 2.5, t2="sad") == []
    assert kinds(events, 2.8, t2="sad") == [("left", 1)]
    assert kinds(events, 2.9, t2="sad") == []


def test_an_event_says_what_was_seen_and_when() -> None:
    events = TrackEvents()
    first = a_result(0, SECOND, a_face(7, label="sad", confidence=0.6))
    second = a_result(1, 3 * SECOND, a_face(7, label="happy", confidence=0.8))
    (appeared,), (changed,) = events.update(first), events.update(second)
    assert (appeared.label, appeared.previous, appeared.in_view_s) == ("sad", None, 0.0)
    assert (changed.label, changed.previous, changed.in_view_s) == ("happy", "sad", 2.0)
    assert (changed.confidence, changed.utc_ns) == (0.8, second.utc_ns)
    (left,) = events.expire(60 * SECOND)
    # Not the minute that nobody looked: they were there for two seconds, last at the second frame.
    assert (left.kind, left.label, left.in_view_s) == ("left", "happy", 2.0)
    assert left.utc_ns == second.utc_ns


def test_people_leave_also_when_no_frame_comes() -> None:
    events = TrackEvents()
    kinds(events, 0.0, t1="happy")
    assert events.expire(round(LEFT_AFTER_S * SECOND)) == []
    assert [e.track for e in events.expire(round((LEFT_AFTER_S + 0.1) * SECOND))] == [1]
    assert events.expire(60 * SECOND) == []


def test_a_face_missed_for_a_moment_has_not_left() -> None:
    events = TrackEvents()
    kinds(events, 0.0, t1="happy")
    assert kinds(events, 0.9) == []
    assert kinds(events, 1.0, t1="happy") == []


frames = st.lists(
    st.dictionaries(st.integers(1, 4), st.sampled_from(["happy", "sad", "uncertain"])), max_size=40
)


@given(frames, st.floats(0.01, 3.0))
def test_who_follows_the_events_knows_who_is_in_view(
    seen: list[dict[int, str]], apart_s: float
) -> None:
    """A receiver that only knows events has each person's label, and forgets who left."""
    events, known, last_s = TrackEvents(), dict[int, str](), dict[int, float]()
    for k, labels in enumerate(seen):
        now_s = k * apart_s
        faces = [a_face(track, label=label) for track, label in labels.items()]
        last_s |= dict.fromkeys(labels, now_s)
        for event in events.update(a_result(k, round(now_s * SECOND), *faces)):
            if event.kind == "appeared":
                assert event.track not in known
            else:
                assert event.track in known
            if event.kind == "changed":
                assert event.previous == known[event.track] != event.label
            if event.kind == "left":
                del known[event.track]
            else:
                known[event.track] = event.label
        here = {track for track, at_s in last_s.items() if now_s - at_s <= LEFT_AFTER_S}
        near = {track for track, at_s in last_s.items() if abs(now_s - at_s - LEFT_AFTER_S) < 1e-6}
        assert set(known) - near == here - near
        assert labels.items() <= known.items()
