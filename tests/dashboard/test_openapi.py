"""Every route as it is described, fuzzed from that description: nothing breaks, nothing leaks out.

The app runs over a fake box with real sockets; what the process opens meanwhile is watched.
"""

import ipaddress
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from contract.access import Login
from dashboard.app import create_app
from dashboard.auth import OPEN_ENDPOINTS, Access
from dashboard.feed import Feed
from tests.dashboard.fake_edge import FakeEdge
from tests.dashboard.processes import until

TOKEN = "correct horse battery staple"
OWN = {"X-Requested-With": "fer-dashboard", "Origin": "http://localhost", "Host": "localhost"}
KEY = {"Authorization": f"Bearer {TOKEN}"}
DASHBOARD = Path(__file__).parents[2] / "dashboard"
SESSION = "20260101T000000_000000Z.csv"
Environment = dict[str, Any]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of session logs, and a secret beside it."""
    folder = tmp_path_factory.mktemp("box") / "sessions"
    folder.mkdir()
    (folder / SESSION).write_text("# header\n")
    (folder.parent / "secret.csv").write_text("the secret")
    return folder


@pytest.fixture(scope="module")
def app(edge: FakeEdge, sessions: Path) -> Iterator[Flask]:
    """The app with a login, over a box that speaks; its streams end as if their client had left."""
    feed = Feed(edge.address)
    feed.start()
    assert until(lambda: feed.age_s() is not None)
    app = create_app(feed, Access(Login(TOKEN)), session_dir=sessions)
    inner, clients = app.wsgi_app, itertools.count()

    def leaving(environ: Environment, start_response: Any) -> Iterable[bytes]:
        environ["waitress.client_disconnected"] = lambda: True
        # Each request from an address of its own, or wrong guesses would soon stop them all.
        environ["REMOTE_ADDR"] = str(ipaddress.ip_address("10.0.0.0") + next(clients))
        with closing(inner(environ, start_response)) as parts:  # as a server must close it
            return [b"".join(parts)]

    app.wsgi_app = leaving  # type: ignore[method-assign]
    yield app
    feed.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


class Opened:
    """Files this process opens, by Python's own audit events."""

    def __init__(self) -> None:
        self.watching = False
        self.paths: set[Path] = set()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        # Not what is imported late, or looked up for the trace of an error inside the test.
        if self.watching and event == "open" and isinstance(arguments[0], str | bytes):
            path = os.fsdecode(arguments[0])
            if not path.endswith((".py", ".pyc", ".so")) and not path.startswith("<"):
                self.paths.add(Path(path).resolve())

    @contextmanager
    def watch(self) -> Iterator[set[Path]]:
        self.paths.clear()
        self.watching = True
        try:
            yield self.paths
        finally:
            self.watching = False


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened()


def fuzz(app: Flask, one: Callable[[Any], None], examples: int) -> None:
    """`one(case)` for generated requests, valid and not, to every operation."""
    schema = schemathesis.openapi.from_dict(description(app))
    schema.app = app
    found = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        found += 1

        @settings(
            max_examples=examples, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def run(case: Any) -> None:
            one(case)

        run()
    assert found >= 15


def description(app: Flask) -> dict[str, Any]:
    answer = app.test_client().get("/openapi.json", headers={**OWN, **KEY})
    assert answer.status_code == 200
    described: dict[str, Any] = answer.get_json()
    return described


def test_every_route_is_described_with_what_it_needs(app: Flask) -> None:
    described = description(app)
    operations = {
        (path, method): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) == sum(
        len((rule.methods or set()) - {"HEAD", "OPTIONS"}) for rule in app.url_map.iter_rules()
    )
    assert ("/api/sessions/{name}", "get") in operations
    assert ("/static/{filename}", "get") in operations
    for (path, method), operation in operations.items():
        assert operation["summary"], path
        headers = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
        assert ("Origin" in headers) == (method != "get"), path
    unlocked = {key for key, operation in operations.items() if operation.get("security") == []}
    assert unlocked == {
        ("/login", "get"), ("/login", "post"), ("/healthz", "get"), ("/static/{filename}", "get")
    }  # fmt: skip
    assert len(OPEN_ENDPOINTS) == len(unlocked)


def test_what_comes_back_is_described_by_its_parts(app: Flask) -> None:
    """Or a fuzzed answer could be anything and still be as described."""
    vague = set()
    for path, methods in description(app)["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                for kind, media in answer.get("content", {}).items():
                    named = kind != "application/json" or {"properties", "$ref"} & set(
                        media["schema"]
                    )
                    if kind == "*/*" or not named:
                        vague.add((path, status))
    # A file is whatever it is, and the description of this description is OpenAPI's business.
    assert vague == {("/static/{filename}", "200"), ("/openapi.json", "200")}


def test_nothing_sent_to_any_route_breaks_it_or_has_it_answer_otherwise_than_described(
    app: Flask, opened: Opened, sessions: Path
) -> None:
    def one(case: Any) -> None:
        response = case.call(headers={**OWN, **KEY})
        case.validate_response(
            response,
            checks=(
                not_a_server_error, status_code_conformance, content_type_conformance,
                response_schema_conformance,
            ),
        )  # fmt: skip
        assert b"the secret" not in response.content

    fuzz(app, one, examples=1)  # to have read what is read once
    with opened.watch() as paths:
        fuzz(app, one, examples=10)
    # Hypothesis keeps notes of its own of every module that was imported since it last looked.
    notes = Path.cwd() / ".hypothesis"
    places = (DASHBOARD / "static", DASHBOARD / "templates", sessions, notes)
    outside = {path for path in paths if not any(path.is_relative_to(place) for place in places)}
    assert outside == set()


def test_nothing_is_read_or_changed_without_a_login(
    app: Flask, edge: FakeEdge, sessions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file: file.read_bytes() for file in sessions.iterdir()}
    reached: list[dict[str, Any]] = []
    monkeypatch.setattr(edge, "answer", lambda request: reached.append(request) or {})

    def one(case: Any) -> None:
        cookie = f"{app.config['SESSION_COOKIE_NAME']}=x"
        for headers in (OWN, {**OWN, "Authorization": "Basic eDp5", "Cookie": cookie}):
            response = case.call(headers=headers)
            if case.operation.label in ("GET /login", "GET /healthz", "GET /static/{filename}"):
                assert response.status_code < 500
            elif case.operation.label == "GET /" and response.status_code == 302:
                assert response.headers["location"] == ["/login"]
            else:
                assert response.status_code == 401, case.operation.label
                assert set(response.json()) == {"error"}

    fuzz(app, one, examples=5)
    assert reached == [], "none of it even reached the box"
    assert {file: file.read_bytes() for file in sessions.iterdir()} == files


@pytest.mark.parametrize(
    "path",
    [
        "../secret.csv", "..%2fsecret.csv", "%2e%2e/secret.csv", "..%5csecret.csv",
        "....//secret.csv", "%00", "x%00.csv", "/etc/passwd", "%2fetc%2fpasswd", "%c0%ae%c0%ae/x",
        "20260101T000000_000000Z.csv/../../secret.csv", "secret.csv",
    ],
)  # fmt: skip
@pytest.mark.parametrize("route", ["/api/sessions/", "/static/"])
def test_no_path_leads_out(client: FlaskClient, route: str, path: str) -> None:
    answer = client.get(f"{route}{path}", headers={**OWN, **KEY})
    assert answer.status_code in (400, 404, 308), path
    assert b"the secret" not in answer.data
    assert b"root:" not in answer.data


def test_the_watch_would_notice_a_file_outside(opened: Opened, sessions: Path) -> None:
    with opened.watch() as paths:
        (sessions.parent / "secret.csv").read_text()
    assert paths == {(sessions.parent / "secret.csv").resolve()}
