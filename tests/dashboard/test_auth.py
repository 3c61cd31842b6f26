"""Who may do what, asked of the app without a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from contract.access import configured_token
from contract.errors import UserError
from contract.telemetry import FeedAddress
from dashboard.app import create_app
from dashboard.auth import FailureLimit
from dashboard.feed import Feed

TOKEN = "correct horse battery staple"
OPEN = {"/login", "/static/<path:filename>", "/healthz"}
WRITE = {"X-Requested-With": "fer-dashboard", "Origin": "http://localhost"}


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    feed = Feed(FeedAddress(tmp_path))
    feed.stop()  # No reader threads, and streams end at once.
    yield feed
    feed.close()


@pytest.fixture
def locked(feed: Feed) -> Flask:
    return create_app(feed, token=TOKEN, loopback=False)


@pytest.fixture
def local(feed: Feed) -> FlaskClient:
    return create_app(feed, token=None, loopback=True).test_client()


def routes(app: Flask) -> list[tuple[str, str, str]]:
    """`(rule, method, path)` of every route."""

    def path(rule: Rule) -> str:
        return rule.rule.replace("<path:filename>", "style.css")

    return [
        (rule.rule, method, path(rule))
        for rule in app.url_map.iter_rules()
        for method in sorted(rule.methods or ())
    ]


def log_in(client: FlaskClient, token: str = TOKEN, address: str = "10.0.0.7") -> TestResponse:
    return client.post(
        "/login", data={"token": token}, headers=WRITE, environ_base={"REMOTE_ADDR": address}
    )


def test_every_route_but_the_open_ones_needs_the_token(locked: Flask) -> None:
    assert {rule for rule, _, _ in routes(locked)} > OPEN
    for rule, method, path in routes(locked):
        response = locked.test_client().open(path, method=method, headers=WRITE)
        if rule in OPEN:
            # A login attempt without a token is a wrong one; no box is there that would be alive.
            expected = {
                ("/login", "POST"): 401,
                ("/healthz", "GET"): 503,
                ("/healthz", "HEAD"): 503,
            }
            assert response.status_code == expected.get((rule, method), 200)
        elif rule == "/":
            assert response.status_code == 302
            assert response.location == "/login"
        else:
            assert response.status_code == 401, (method, path)


def test_a_path_that_is_no_route_tells_nothing_without_the_token(locked: Flask) -> None:
    assert locked.test_client().get("/api/secret").status_code == 401
    assert locked.test_client().get("/static/../app.py").status_code in (401, 404)


def test_a_bearer_token_opens_and_a_wrong_one_does_not(locked: Flask) -> None:
    client = locked.test_client()
    good = client.get("/api/state", headers={"Authorization": f"Bearer {TOKEN}"})
    bad = client.get("/api/state", headers={"Authorization": "Bearer wrong"})
    assert (good.status_code, bad.status_code) == (200, 401)
    assert bad.headers["WWW-Authenticate"] == "Bearer"
    assert client.get("/api/state", headers={"Authorization": TOKEN}).status_code == 401


def test_login_sets_a_strict_http_only_cookie_that_opens(locked: Flask) -> None:
    client = locked.test_client()
    response = log_in(client)
    assert response.status_code == 204
    cookie = response.headers["Set-Cookie"]
    assert "SameSite=Strict" in cookie
    assert "HttpOnly" in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200


def test_a_cookie_of_another_process_is_worth_nothing(locked: Flask, feed: Feed) -> None:
    client = locked.test_client()
    cookie = log_in(client).headers["Set-Cookie"].partition(";")[0]
    other = create_app(feed, token=TOKEN, loopback=False).test_client()
    assert other.get("/api/state", headers={"Cookie": cookie}).status_code == 401


def test_guessing_is_slowed_down_for_form_and_header_alike(locked: Flask) -> None:
    client = locked.test_client()
    for _ in range(3):
        assert log_in(client, "wrong").status_code == 401
    for _ in range(2):
        response = client.get(
            "/api/state",
            headers={"Authorization": "Bearer wrong"},
            environ_base={"REMOTE_ADDR": "10.0.0.7"},
        )
        assert response.status_code == 401
    blocked = log_in(client)  # Even the right token, so that nothing is learnt.
    assert blocked.status_code == 429
    assert int(blocked.headers["Retry-After"]) > 0
    assert log_in(client, address="10.0.0.8").status_code == 204


def test_the_limit_ends_with_its_window() -> None:
    now = [100.0]
    limit = FailureLimit(limit=2, window_s=60, clock=lambda: now[0])
    limit.failed("a")
    now[0] += 10
    limit.failed("a")
    assert limit.wait_s("a") == 50
    assert limit.wait_s("b") == 0
    now[0] += 51
    assert limit.wait_s("a") == 0


def test_the_limit_remembers_a_bounded_number_of_addresses() -> None:
    limit = FailureLimit(limit=1)
    for number in range(limit.ADDRESSES + 50):
        limit.failed(str(number))
    assert limit.wait_s("0") == 0
    assert limit.wait_s(str(limit.ADDRESSES + 49)) > 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (WRITE, 504),  # Allowed; there is no box here to answer.
        ({"X-Requested-With": "fer-dashboard"}, 403),
        ({"Origin": "http://localhost"}, 403),
        ({**WRITE, "Origin": "http://evil.example"}, 403),
        ({**WRITE, "Origin": "null"}, 403),
        ({**WRITE, "Origin": "http://localhost.evil.example"}, 403),
        ({**WRITE, "Origin": "http://localhost:81"}, 403),
    ],
)
def test_a_write_needs_the_own_origin_and_the_header(
    local: FlaskClient, headers: dict[str, str], status: int
) -> None:
    response = local.post("/api/settings", json={"set": {"raw_view": True}}, headers=headers)
    assert response.status_code == status
    assert response.json is not None
    assert response.json["error"]


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"])
def test_local_names_are_answered(local: FlaskClient, host: str) -> None:
    assert local.get("/api/state", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1:8080", "[::"])
def test_a_rebound_name_is_refused_on_loopback(local: FlaskClient, host: str) -> None:
    for path in ("/", "/api/state", "/healthz", "/static/style.css", "/login"):
        assert local.get(path, headers={"Host": host}).status_code in (400, 403)


def test_every_answer_carries_the_security_headers(locked: Flask) -> None:
    for path in ("/login", "/healthz", "/static/style.css", "/nothing"):
        headers = locked.test_client().get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert locked.test_client().get("/healthz").headers["Cache-Control"] == "no-store"


def test_the_pages_hold_no_inline_script_or_style(local: FlaskClient, locked: Flask) -> None:
    for text in (local.get("/").text, locked.test_client().get("/login").text):
        assert "<style" not in text
        assert " style=" not in text
        assert "onclick" not in text
        assert text.count("<script") == text.count('<script type="module" src="/static/')
        assert "://" not in text


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"set": 1}', b'{"set": {}}', b'{"get": "settings"}']
)
def test_a_malformed_setting_is_refused_here(local: FlaskClient, body: bytes) -> None:
    response = local.post(
        "/api/settings", data=body, content_type="application/json", headers=WRITE
    )
    assert response.status_code == 400


def test_a_huge_body_is_refused(local: FlaskClient) -> None:
    body = b'{"set": {"raw_view": "' + b"x" * 100_000 + b'"}}'
    response = local.post(
        "/api/settings", data=body, content_type="application/json", headers=WRITE
    )
    assert response.status_code in (400, 413)


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from file\n")
    assert configured_token({}) is None
    assert configured_token({"FER_DASHBOARD_TOKEN": "from env"}) == "from env"
    assert configured_token({"FER_DASHBOARD_TOKEN_FILE": str(file)}) == "from file"


@pytest.mark.parametrize(
    "environment",
    [
        {"FER_DASHBOARD_TOKEN": " "},
        {"FER_DASHBOARD_TOKEN_FILE": "/nowhere/token"},
        {"FER_DASHBOARD_TOKEN": "a", "FER_DASHBOARD_TOKEN_FILE": "b"},
    ],
)
def test_a_broken_token_setting_is_a_user_error(environment: dict[str, str]) -> None:
    with pytest.raises(UserError, match="FER_DASHBOARD_TOKEN"):
        configured_token(environment)
