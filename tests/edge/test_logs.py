"""The log: text or JSON, each line once in a while, never a secret."""

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from edge import logs
from edge.logs import LogHandler, chosen_form
from edge.masking import Mask, configured_secrets, credentials_of

PASSWORD = "hunter2-is-secret"


class Log:
    """A logger with a handler of ours, a clock that is set by hand, and what was written."""

    def __init__(self, form: Literal["text", "json"] = "text", *secrets: str) -> None:
        self.now = 1000.0
        self.stream = StringIO()
        self.handler = LogHandler(
            form, Mask(secrets), stream=self.stream, window_s=30, monotonic=lambda: self.now
        )
        self.logger = logging.Logger("edge.test")
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def texts(self) -> list[str]:
        return [line.partition(" ")[2] for line in self.lines]

    @property
    def values(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def test_text_is_a_time_and_the_message() -> None:
    log = Log()
    log.logger.info("camera %s: %s", "live", "demo gives frames")
    (line,) = log.lines
    assert datetime.strptime(line[:8], "%H:%M:%S")
    assert line[8:] == " camera live: demo gives frames"


def test_json_is_one_object_a_line_with_utc_and_the_traceback() -> None:
    log = Log("json")
    before = datetime.now(UTC)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.logger.exception('it "failed"\nbadly')
    (value,) = log.values
    when = datetime.fromisoformat(value["time"])
    assert when.utcoffset() is not None and when.utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    assert abs((when - before).total_seconds()) < 60
    assert (value["level"], value["logger"]) == ("error", "edge.test")
    assert value["message"] == 'it "failed"\nbadly'
    assert "ValueError: two" in value["exception"]


def test_a_line_that_repeats_is_said_once_and_counted() -> None:
    log = Log()
    for _ in range(5):
        log.logger.warning("no frame")
        log.now += 1
    assert log.texts == ["no frame"]
    log.now += 26  # the window of 30 s is over
    log.logger.info("live")
    assert log.texts == ["no frame", "last message repeated 4 times: no frame", "live"]
    log.logger.warning("no frame")
    assert log.texts[-1] == "no frame", "a new window says it again"


def test_news_is_said_however_soon_it_comes_again() -> None:
    log = Log()
    for text in ("gone", "back", "gone", "back"):
        log.logger.warning(text, extra={logs.NEWS: True})
    assert log.texts == ["gone", "back", "gone", "back"]


def test_lines_that_take_turns_are_each_said_once() -> None:
    log = Log()
    for _ in range(3):
        log.logger.warning("gone")
        log.logger.warning("back")
    log.handler.close()
    assert log.texts == [
        "gone",
        "back",
        "last message repeated 2 times: gone",
        "last message repeated 2 times: back",
    ]


def test_another_level_or_logger_is_another_line() -> None:
    log = Log("json")
    log.logger.info("the same")
    log.logger.warning("the same")
    other = logging.Logger("edge.other")
    other.addHandler(log.handler)
    other.info("the same")
    assert [(v["logger"], v["level"]) for v in log.values] == [
        ("edge.test", "info"), ("edge.test", "warning"), ("edge.other", "info"),
    ]  # fmt: skip


def test_what_repeated_last_is_said_at_the_end() -> None:
    log = Log("json")
    for _ in range(2):
        log.logger.error("disk full")
    log.handler.close()
    assert [v["message"] for v in log.values] == [
        "disk full", "last message repeated once: disk full",
    ]  # fmt: skip
    assert log.values[1]["level"] == "error"


def test_lines_that_never_repeat_cost_no_memory() -> None:
    log = Log()
    for number in range(3 * logs.MOST_REMEMBERED):
        log.logger.info("frame %d", number)
    assert len(log.handler._said) <= logs.MOST_REMEMBERED
    assert len(log.lines) == 3 * logs.MOST_REMEMBERED


@given(
    events=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 40)), max_size=60),
)
def test_no_line_is_lost_or_said_twice_in_a_window(events: list[tuple[str, float]]) -> None:
    log = Log()
    said_at: dict[str, float] = {}
    for text, pause_s in events:
        log.now += pause_s
        before = len(log.lines)
        log.logger.info(text)
        if text in log.texts[before:]:
            assert log.now - said_at.get(text, -100) >= 30
            said_at[text] = log.now
    log.handler.close()
    for text in "abc":
        counted = log.texts.count(text)
        for line in log.texts:
            if line.startswith("last message repeated") and line.endswith(f": {text}"):
                times = line.split()[3]
                counted += 1 if times.startswith("once") else int(times)
        assert counted == sum(name == text for name, _ in events)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"rtsp://admin:{PASSWORD}@10.0.0.9/live gone", "rtsp://10.0.0.9/live gone"),
        (f"http://cam/video?user=a&pwd={PASSWORD} gone", "http://cam/video gone"),
        (f"rtsp://cam/user=admin&password={PASSWORD}/ch1", "rtsp://cam/…/ch1"),
        (f"(rtsp://u:p/{PASSWORD}#@cam/x)", "(rtsp://cam/x)"),
        ("dashboard: http://127.0.0.1:8080/", "dashboard: http://127.0.0.1:8080/"),
        ("plain text, a@b and 5:30", "plain text, a@b and 5:30"),
    ],
)
def test_addresses_lose_what_may_be_secret(text: str, shown: str) -> None:
    assert Mask()(text) == shown
    for form in ("text", "json"):
        log = Log(form)  # type: ignore[arg-type]
        log.logger.warning("%s", text)
        assert PASSWORD not in log.stream.getvalue()


def test_configured_secrets_are_hidden_in_messages_and_tracebacks(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("token-in-a-file\n")
    environ = {
        "FER_DASHBOARD_TOKEN": PASSWORD,
        "FER_MQTT_PASSWORD_FILE": str(file),
        "FER_OTHER_TOKEN_FILE": str(tmp_path / "none"),
        "FER_MODELS": "/models",
        "HOME": "/home/somebody",
    }
    assert sorted(configured_secrets(environ)) == [PASSWORD, "token-in-a-file"]
    handed = tmp_path / "credentials"
    handed.mkdir()
    (handed / "fer-mqtt-password").write_text("handed over\n")
    (handed / "others-password").write_text("not ours")
    assert configured_secrets({"CREDENTIALS_DIRECTORY": str(handed)}) == ["handed over"]
    for form in ("text", "json"):
        log = Log(form, *configured_secrets(environ))  # type: ignore[arg-type]
        try:
            raise RuntimeError(f"refused token-in-a-file for {PASSWORD}")
        except RuntimeError:
            log.logger.exception("sent %s from /models", PASSWORD)
        said = log.stream.getvalue()
        assert "Traceback" in said and "/models" in said and "refused … for …" in said
        assert PASSWORD not in said and "token-in-a-file" not in said


def test_a_cameras_password_is_hidden_wherever_it_turns_up() -> None:
    mask = Mask(credentials_of(f"rtsp://admin:{PASSWORD}@cam/1"))
    assert PASSWORD not in mask(f"401 for admin:{PASSWORD}, tried {PASSWORD}")
    assert credentials_of("/dev/video0") == credentials_of("http://cam/x") == []
    assert Mask(["cam"])("the camera") == "the camera", "too short to be looked for"


def test_values_under_a_secrets_name_are_hidden_whole() -> None:
    tree = {"api_key": 5, "dashboard": [{"token": "abc", "port": 1}], "password": None, "x": ("y",)}
    assert Mask().tree(tree) == {
        "api_key": "…", "dashboard": [{"token": "…", "port": 1}], "password": None, "x": ["y"],
    }  # fmt: skip


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Any]:
    with (tmp_path / "stderr").open("w") as opened:
        yield opened


def test_json_is_for_the_stream_that_systemd_reads(stream: Any) -> None:
    status = os.fstat(stream.fileno())
    own = f"{status.st_dev}:{status.st_ino}"
    assert chosen_form(None, stream, {}) == "text"
    assert chosen_form(None, stream, {"JOURNAL_STREAM": own}) == "json"
    # A shell inside a service, with its output sent elsewhere.
    assert chosen_form(None, stream, {"JOURNAL_STREAM": "1:1", "INVOCATION_ID": "a"}) == "text"
    assert chosen_form(None, stream, {"INVOCATION_ID": "a"}) == "json"
    assert chosen_form(None, StringIO(), {"INVOCATION_ID": "a"}) == "text"


def test_a_terminal_is_read_by_people_whoever_started_it() -> None:
    _, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream:
        assert chosen_form(None, stream, {"INVOCATION_ID": "a"}) == "text"


def test_the_flag_wins_over_the_variable_and_a_wrong_one_is_named(stream: Any) -> None:
    assert chosen_form(None, stream, {"FER_LOG": "json"}) == "json"
    assert chosen_form("text", stream, {"FER_LOG": "json"}) == "text"
    assert chosen_form("auto", stream, {"FER_LOG": "json"}) == "text"
    with pytest.raises(UserError, match="FER_LOG jsn: no such form, did you mean 'json'"):
        chosen_form(None, stream, {"FER_LOG": "jsn"})


def test_set_up_is_done_once_can_change_form_and_leaves_others_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.Logger("root")
    logs.set_up("text", environ={"FER_DASHBOARD_TOKEN": PASSWORD}, root=root)
    logs.set_up("json", environ={}, root=root)
    logs.hide("another-secret", root=root)
    root.info("told %s and another-secret", PASSWORD)
    assert json.loads(capsys.readouterr().err)["message"] == "told … and …"
    assert (len(root.handlers), root.level) == (1, logging.INFO)

    somebodys = logging.Logger("root")
    somebodys.addHandler(logging.NullHandler())
    logs.set_up("json", environ={}, root=somebodys)
    assert len(somebodys.handlers) == 1
