"""The detector's file: found, fetched once and verified, or a reason why not."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contract.errors import UserError
from edge.detector_files import YUNET_FILE, YUNET_URL, fetch_yunet, find_yunet, model_folders

CONTENT = b"a small stand-in for the model" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """A real HTTP server on loopback; `answer` may be replaced, `asked` counts requests."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answer: Answer = lambda request: body(request, CONTENT)
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{YUNET_FILE}"


def body(request: BaseHTTPRequestHandler, content: bytes, length: int | None = None) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(length or len(content)))
    request.end_headers()
    request.wfile.write(content)
    request.wfile.flush()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "XDG_DATA_HOME": str(tmp_path / "data")}


def kept(tmp_path: Path) -> list[Path]:
    return [p for p in (tmp_path / "data").rglob("*") if p.is_file()]


def test_it_is_downloaded_once_verified_and_found(
    server: Server, environ: dict[str, str], tmp_path: Path
) -> None:
    result = fetch_yunet(url=server.url, sha256=SHA256, environ=environ)
    assert result.path == tmp_path / "data" / "fer-edge" / "models" / YUNET_FILE
    assert result.path.read_bytes() == CONTENT
    assert find_yunet(model_folders(environ)) == result.path
    assert fetch_yunet(url=server.url, sha256=SHA256, environ=environ).path == result.path
    assert server.asked == 1


def test_fer_models_comes_first_and_needs_no_network(
    server: Server, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / YUNET_FILE).write_bytes(CONTENT)
    environ["FER_MODELS"] = str(tmp_path)
    result = fetch_yunet(url=server.url, sha256=SHA256, environ=environ)
    assert result.path == tmp_path / YUNET_FILE == find_yunet(model_folders(environ))
    assert server.asked == 0


def test_a_wrong_file_in_fer_models_is_a_mistake_of_the_user(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / YUNET_FILE).write_bytes(b"something else")
    environ["FER_MODELS"] = str(tmp_path)
    with pytest.raises(UserError) as caught:
        fetch_yunet(sha256=SHA256, environ=environ)
    assert str(tmp_path / YUNET_FILE) in str(caught.value) and "FER_MODELS" in str(caught.value)


def test_fer_models_without_the_file_goes_on_to_the_download(
    server: Server, environ: dict[str, str], tmp_path: Path
) -> None:
    environ["FER_MODELS"] = str(tmp_path / "nowhere")
    assert fetch_yunet(url=server.url, sha256=SHA256, environ=environ).path is not None


def test_a_damaged_file_of_ours_is_fetched_again(
    server: Server, environ: dict[str, str], tmp_path: Path
) -> None:
    own = tmp_path / "data" / "fer-edge" / "models" / YUNET_FILE
    own.parent.mkdir(parents=True)
    own.write_bytes(CONTENT[:-1])
    assert fetch_yunet(url=server.url, sha256=SHA256, environ=environ).path == own
    assert own.read_bytes() == CONTENT


def not_found(request: BaseHTTPRequestHandler) -> None:
    request.send_error(404)


def redirect_away(request: BaseHTTPRequestHandler) -> None:
    request.send_response(302)
    request.send_header("Location", "http://example.invalid/model")
    request.end_headers()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda r: body(r, b"<html>sign in to the hotel's network</html>"), "not the pinned YuNet"),
        (lambda r: body(r, CONTENT[:500], len(CONTENT)), "not"),
        (lambda r: body(r, b"x" * (5 << 20)), "too large"),
        (not_found, "404"),
        (redirect_away, "not https"),
        (lambda r: r.wfile.write(b"SSH-2.0-hello\r\n\r\n"), "no proper answer"),
    ],
    ids=["portal", "cut short", "too large", "404", "redirect to http", "no http"],
)
def test_wrong_content_is_a_reason_and_leaves_nothing(
    server: Server, environ: dict[str, str], tmp_path: Path, answer: Answer, why: str
) -> None:
    server.answer = answer
    result = fetch_yunet(url=server.url, sha256=SHA256, environ=environ, limit_s=5)
    assert result.path is None
    assert why in result.reason and "\n" not in result.reason
    assert kept(tmp_path) == []


def drip(request: BaseHTTPRequestHandler) -> None:
    """Bytes often enough that no single read times out, and far too slowly in all."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    for k in range(len(CONTENT)):
        request.wfile.write(CONTENT[k : k + 1])
        request.wfile.flush()
        time.sleep(0.05)


def silent(request: BaseHTTPRequestHandler) -> None:
    time.sleep(5)


@pytest.mark.parametrize("answer", [drip, silent])
def test_a_slow_server_hits_the_limit_for_the_whole(
    server: Server, environ: dict[str, str], tmp_path: Path, answer: Answer
) -> None:
    server.answer = answer
    start = time.monotonic()
    result = fetch_yunet(url=server.url, sha256=SHA256, environ=environ, limit_s=0.4)
    assert time.monotonic() - start < 2
    assert result.path is None and result.reason
    assert kept(tmp_path) == []


def test_no_server_is_a_reason(environ: dict[str, str], server: Server) -> None:
    url = server.url
    server.server_close()
    result = fetch_yunet(url=url, sha256=SHA256, environ=environ, limit_s=2)
    assert result.path is None and "127.0.0.1" in result.reason


def test_a_data_folder_that_cannot_be_written_is_a_reason(
    server: Server, environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("a file in the way")
    result = fetch_yunet(url=server.url, sha256=SHA256, environ=environ)
    assert result.path is None and str(tmp_path / "data") in result.reason


def test_the_real_address_is_https_and_plain_http_is_refused(environ: dict[str, str]) -> None:
    assert YUNET_URL.startswith("https://")
    result = fetch_yunet(url="http://example.invalid/model", environ=environ, limit_s=2)
    assert result.path is None and "not https" in result.reason


def test_a_relative_xdg_data_home_is_ignored(tmp_path: Path) -> None:
    folders = model_folders({"HOME": str(tmp_path), "XDG_DATA_HOME": "relative"})
    assert folders == (tmp_path / ".local" / "share" / "fer-edge" / "models",)
