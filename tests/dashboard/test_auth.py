"""Who may do what, asked of the app without a server."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.security import generate_password_hash
from werkzeug.test import TestResponse

from contract.access import Login
from contract.telemetry import FeedAddress
from dashboard.app import create_app
from dashboard.auth import Access, KnownHosts
from dashboard.feed import Feed, Latest

TOKEN = "correct horse battery staple"
PASSWORD = "a wall of many screens"
# Cheap parameters; how dear it is makes no difference here.
HASH = generate_password_hash(PASSWORD, "scrypt:1024:8:1")
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
    return create_app(feed, Access(Login(TOKEN, HASH), loopback=False))


@pytest.fixture
def local(feed: Feed) -> FlaskClient:
    return create_app(feed, Access()).test_client()


def routes(app: Flask) -> list[tuple[str, str, str]]:
    """`(rule, method, path)` of every route."""

    def path(rule: Rule) -> str:
        return rule.rule.replace("<path:filename>", "style.css").replace("<name>", "x.csv")

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


def test_the_password_opens_as_the_token_does_but_not_as_a_bearer(locked: Flask) -> None:
    client = locked.test_client()
    assert log_in(client, PASSWORD).status_code == 204
    assert client.get("/api/state").status_code == 200
    bearer = {"Authorization": f"Bearer {PASSWORD}"}
    assert locked.test_client().get("/api/state", headers=bearer).status_code == 401


def test_the_cookie_is_kept_to_tls_where_it_came_over_tls(locked: Flask) -> None:
    assert "Secure" not in log_in(locked.test_client()).headers["Set-Cookie"]
    secure = locked.test_client().post(
        "/login",
        data={"token": TOKEN},
        base_url="https://localhost",
        headers={**WRITE, "Origin": "https://localhost"},
    )
    assert "; Secure" in secure.headers["Set-Cookie"]


def test_logging_out_ends_the_login_whoever_has_its_cookie(locked: Flask) -> None:
    client, thief = locked.test_client(), locked.test_client(use_cookies=False)
    stolen = {"Cookie": log_in(client).headers["Set-Cookie"].partition(";")[0]}
    assert thief.get("/api/state", headers=stolen).status_code == 200
    foreign = {**WRITE, "Origin": "http://evil.example"}
    assert client.post("/logout", headers=foreign).status_code == 403
    assert thief.get("/api/state", headers=stolen).status_code == 200, "not by another site"
    answer = client.post("/logout", headers=WRITE)
    assert answer.status_code == 204
    assert client.get("/api/state").status_code == 401
    assert thief.get("/api/state", headers=stolen).status_code == 401


def test_a_stream_ends_with_its_login(feed: Feed) -> None:
    feed.stopping.clear()
    feed.telemetry = Latest()
    app = create_app(feed, Access(Login(TOKEN), loopback=False))
    client = app.test_client()
    log_in(client)
    stream = client.get("/events", buffered=False)
    parts = iter(stream.iter_encoded())
    assert next(parts).startswith(b"retry")
    client.post("/logout", headers=WRITE)
    assert list(parts) == []
    stream.close()


def test_a_stream_by_the_token_does_not_end_for_an_old_cookie(feed: Feed) -> None:
    feed.stopping.clear()
    feed.telemetry = Latest()
    client = create_app(feed, Access(Login(TOKEN), loopback=False)).test_client(use_cookies=False)
    dead = {"Cookie": log_in(client).headers["Set-Cookie"].partition(";")[0]}
    client.post("/logout", headers={**WRITE, **dead})
    assert client.get("/api/state", headers=dead).status_code == 401
    bearer = {"Authorization": f"Bearer {TOKEN}", **dead}
    stream = client.get("/events", headers=bearer, buffered=False)
    parts = iter(stream.iter_encoded())
    assert next(parts).startswith(b"retry")
    assert b"silence" in next(parts)
    stream.close()


def test_a_cookie_of_another_process_is_worth_nothing(locked: Flask, feed: Feed) -> None:
    client = locked.test_client()
    cookie = log_in(client).headers["Set-Cookie"].partition(";")[0]
    other = create_app(feed, Access(Login(TOKEN), loopback=False)).test_client(use_cookies=False)
    assert other.get("/api/state", headers={"Cookie": cookie}).status_code == 401


def test_two_dashboards_on_one_machine_do_not_end_each_others_logins(feed: Feed) -> None:
    """A browser sends the cookies of a host to all its ports, one of each name."""
    jar: dict[str, str] = {}
    apps = [create_app(feed, Access(Login(TOKEN), port=port)) for port in (8080, 8081)]
    for app in apps:
        cookie = log_in(app.test_client()).headers["Set-Cookie"].partition(";")[0]
        name, _, value = cookie.partition("=")
        jar[name] = value
    cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
    for app in apps:
        client = app.test_client(use_cookies=False)
        assert client.get("/api/state", headers=cookies).status_code == 200


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
    assert blocked.json == {
        "error": f"too many attempts; try again in {blocked.headers['Retry-After']} s"
    }
    assert 50 < int(blocked.headers["Retry-After"]) <= 61
    assert log_in(client, address="10.0.0.8").status_code == 204


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
        ({**WRITE, "Origin": "https://localhost"}, 403),
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


HOSTS = KnownHosts(Access(loopback=False, allowed_hosts=("wall.example.lan",)), "Box-7")


@pytest.mark.parametrize(
    "host",
    [
        "192.168.1.20:8080", "[fd00::20]:8080", "wall.example.lan", "Wall.Example.Lan:8443",
        "box-7", "box-7.local:8080", "localhost:8080",
    ],
)  # fmt: skip
def test_on_a_network_addresses_own_names_and_allowed_ones_are_answered(host: str) -> None:
    assert host in HOSTS


@pytest.mark.parametrize(
    "host", ["evil.example", "wall.example.lan.evil.example", "box-7.evil.example", "", "1.2.3.4.x"]
)
def test_a_rebound_name_is_refused_on_a_network_too(host: str) -> None:
    assert host not in HOSTS


def test_a_rebound_name_is_told_how_to_be_allowed(locked: Flask) -> None:
    answer = locked.test_client().get("/login", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert "dashboard.allowed_hosts" in answer.text


def test_what_another_site_has_a_browser_fetch_is_refused(local: FlaskClient) -> None:
    for site in ("cross-site", "same-site"):
        picture = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
        assert local.get("/stream.mjpg", headers=picture).status_code == 403
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
        assert local.get("/", headers=link).status_code == 200
    own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert local.get("/api/state", headers=own).status_code == 200


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
        scripts = re.findall(r"<script([^>]*)>(.?)", text)
        assert scripts
        assert all(' src="/static/' in tag and inner == "<" for tag, inner in scripts)
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
