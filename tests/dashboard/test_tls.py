"""HTTPS by certificate files, and behind a real nginx: the same page, streams, limits and end."""

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.errors import UserError
from contract.tls import server_context
from dashboard.server import STALL_S
from dashboard.streams import MAX_STREAMS
from tests.certificates import OPENSSL, make_certificate
from tests.dashboard.processes import end, environment, start, until, url_printed

TOKEN = "correct horse battery staple"
DOCS = Path(__file__).parents[2] / "docs" / "dashboard.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="needs openssl to make certificates")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "box")


@pytest.fixture
def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """A client that trusts the certificate, and no other."""
    return ssl.create_default_context(cafile=str(certificate[0]))


@contextmanager
def https(folder: Path, certificate: tuple[Path, Path]) -> Iterator[tuple[str, int]]:
    """A dashboard over TLS; its URL and process id."""
    process = start(
        "--feed", str(folder), "--port", "0", "--tls-certificate", str(certificate[0]),
        "--tls-key", str(certificate[1]), env=environment(),
    )  # fmt: skip
    try:
        yield url_printed(process), process.pid
    finally:
        assert end(process) < 4  # two seconds, and some more on a busy machine
        assert process.returncode == 0


def fetch(url: str, context: ssl.SSLContext, **headers: str) -> Any:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=5, context=context) as response:
        return json.load(response)


def address(url: str) -> tuple[str, int]:
    host, port = url.partition("://")[2].split(":")
    return host, int(port)


@pytest.mark.usefixtures("edge")
def test_the_page_its_streams_and_its_limits_over_tls(
    folder: Path, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    with https(folder, certificate) as (url, _), ExitStack() as stack:
        assert url.startswith("https://127.0.0.1:")
        assert until(lambda: fetch(f"{url}/api/state", trusting)["age_s"] is not None)
        for _ in range(MAX_STREAMS):
            stream = urllib.request.urlopen(f"{url}/events", timeout=5, context=trusting)
            stack.enter_context(stream)
            assert stream.readline() == b"retry: 1000\n"
        with pytest.raises(urllib.error.HTTPError) as error:
            fetch(f"{url}/events", trusting)
        assert (error.value.code, int(error.value.headers["Retry-After"]) > 0) == (503, True)
        stack.close()
        # They are gone at once, not when something is next sent to them.
        gone = lambda: fetch(f"{url}/api/state", trusting)["streams"]["active"] == 0  # noqa: E731
        assert until(gone, within_s=2)
        # One that reads nothing is dropped all the same.
        with closing(socket.create_connection(address(url))) as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            greedy = trusting.wrap_socket(plain, server_hostname="127.0.0.1")
            host = url.partition("://")[2]
            greedy.sendall(f"GET /stream.mjpg HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert until(lambda: not gone())
            assert until(gone, within_s=STALL_S + 10)
        # It must still end in time while a stream runs: `https` asserts that.
        stack.enter_context(urllib.request.urlopen(f"{url}/events", timeout=5, context=trusting))


def test_who_does_not_speak_tls_is_dropped_and_harms_nobody(
    folder: Path, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    with https(folder, certificate) as (url, _):
        plain = http.client.HTTPConnection(*address(url), timeout=5)
        with closing(plain), pytest.raises((http.client.HTTPException, OSError)):
            plain.request("GET", "/healthz")
            plain.getresponse()
        with closing(socket.create_connection(address(url))):
            # It says nothing at all; the others are served meanwhile.
            assert "streams" in fetch(f"{url}/api/state", trusting)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)), socket.create_connection(address(url)) as one:
            old.wrap_socket(one)


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(folder: Path) -> None:
    place = folder / "renewed"
    place.mkdir()
    first = make_certificate(place, "box")

    def shown(url: str) -> str:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(address(url), timeout=5) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")

    with https(folder, first) as (url, _):
        before = shown(url)
        assert before == first[0].read_text()
        key = first[1].read_text()
        first[1].write_text("broken")
        assert shown(url) == before
        first[1].write_text(key)
        second = make_certificate(place, "box")
        assert shown(url) == second[0].read_text() != before


def test_files_that_are_no_certificate_are_one_line(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    good, key = certificate
    other = make_certificate(tmp_path, "other")
    locked = make_certificate(tmp_path, "locked", "-passout", "pass:secret")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for first, second, says in (
        (tmp_path / "none.pem", None, "no such file"),
        (text, None, "not a PEM"),
        (good, other[1], "not a PEM certificate and the private key it belongs to"),
        (good, None, "not a PEM"),
        (*locked, "encrypted"),
        (tmp_path, None, "not"),
    ):
        with pytest.raises(UserError) as error:
            server_context(first, second)
        assert says in str(error.value).replace("No such", "no such"), error.value
        assert str(first) in str(error.value)
    assert server_context(good, key).minimum_version >= ssl.TLSVersion.TLSv1_2


def nginx_configuration(
    folder: Path, port: int, target: int, certificate: tuple[Path, Path]
) -> str:
    """The documented server block between what a test must have of its own."""
    block = DOCS.read_text(encoding="utf-8").partition("```nginx\n")[2].partition("```")[0]
    assert "proxy_pass http://127.0.0.1:8080;" in block
    block = (
        block.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
        .replace("proxy_pass http://127.0.0.1:8080;", f"proxy_pass http://127.0.0.1:{target};")
        .replace("/etc/ssl/certs/box.pem", str(certificate[0]))
        .replace("/etc/ssl/private/box.key", str(certificate[1]))
        .replace("server_name box.example.lan;", "server_name localhost;")
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{block}}}\n"
    )


@contextmanager
def proxied(folder: Path, place: Path, certificate: tuple[Path, Path]) -> Iterator[str]:
    """A dashboard with a token behind a real nginx; the URL of the latter."""
    process = start(
        "--feed", str(folder), "--port", "0", "--trusted-proxy", "127.0.0.1",
        env=environment(FER_DASHBOARD_TOKEN=TOKEN),
    )  # fmt: skip
    with ExitStack() as stack:
        stack.callback(end, process)
        target = address(url_printed(process))[1]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        file = place / "nginx.conf"
        file.write_text(nginx_configuration(place, port, target, certificate))
        nginx = subprocess.Popen([str(NGINX), "-c", str(file), "-p", str(place)], stderr=-3)
        stack.callback(nginx.wait, 10)
        stack.callback(nginx.terminate)

        def listens() -> bool:
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", port)) == 0

        assert until(listens), (place / "error.log").read_text()
        yield f"https://127.0.0.1:{port}"


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
@pytest.mark.usefixtures("edge")
def test_behind_nginx_as_documented(
    folder: Path, tmp_path: Path, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    with proxied(folder, tmp_path, certificate) as url:
        with pytest.raises(urllib.error.HTTPError) as error:
            fetch(f"{url}/api/state", trusting)
        assert error.value.code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert fetch(f"{url}/api/state", trusting, **bearer)["streams"]["active"] == 0

        # Events come through at once, though nginx would like to collect them.
        events = urllib.request.Request(f"{url}/events", headers=bearer)
        began = time.monotonic()
        with urllib.request.urlopen(events, timeout=5, context=trusting) as stream:
            while not stream.readline().startswith(b"data: "):
                pass
        assert time.monotonic() - began < 2
        until(lambda: fetch(f"{url}/api/state", trusting, **bearer)["streams"]["active"] == 0)

        def log_in(given: str, **more: str) -> tuple[int, str]:
            """Status of a login, and the cookie it sets."""
            headers = {"X-Requested-With": "fer-dashboard", "Origin": url, **more}
            request = urllib.request.Request(
                f"{url}/login", data=f"token={given}".encode(), headers=headers
            )
            try:
                with urllib.request.urlopen(request, timeout=5, context=trusting) as answer:
                    return answer.status, answer.headers["Set-Cookie"]
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, ""

        status, cookie = log_in(TOKEN.replace(" ", "+"))
        assert (status, "; Secure" in cookie) == (204, True)
        assert log_in(TOKEN, Origin="https://evil.example")[0] == 403
        # Whatever a client says of itself, it is counted under the address nginx saw.
        told = [log_in("wrong", **{"X-Forwarded-For": f"192.0.2.{n}"})[0] for n in range(6)]
        assert told == [401] * 5 + [429]
