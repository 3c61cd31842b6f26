"""Where the face detector's file is, and getting it once where it is not.

YuNet (`face_detection_yunet_2023mar.onnx`, MIT, OpenCV Zoo) is not part of this project: it is
looked for in the folder named by `FER_MODELS`, then in the user's data folder, and is only ever
used if it is the exact file pinned here.
"""

import hashlib
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from contract.errors import UserError
from contract.files import sha256_file, write_atomic

YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
YUNET_URL = (
    f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{YUNET_FILE}"
)
MOST_BYTES = 4 << 20


def data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's own folder for models: `$XDG_DATA_HOME/fer-edge/models`, or its default."""
    base = Path(environ.get("XDG_DATA_HOME", ""))
    # A relative path is to be ignored (XDG Base Directory Specification).
    if not base.is_absolute():
        base = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
        base = base / ".local" / "share"
    return base / "fer-edge" / "models"


def model_folders(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Folders in which models are looked for, in this order."""
    named = environ.get("FER_MODELS")
    return (*((Path(named).expanduser(),) if named else ()), data_folder(environ))


def find_yunet(folders: tuple[Path, ...] | None = None) -> Path | None:
    """The first YuNet file in `folders` (default: `model_folders()`); it is not yet verified."""
    for folder in model_folders() if folders is None else folders:
        if (folder / YUNET_FILE).is_file():
            return folder / YUNET_FILE
    return None


def fault_of(path: Path, sha256: str = YUNET_SHA256) -> str:
    """What is wrong with a detector file, in one line, or an empty string."""
    try:
        found = sha256_file(path)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if found == sha256:
        return ""
    return f"{path} is not the pinned YuNet (sha256 {found[:12]}…, expected {sha256[:12]}…)"


@dataclass(frozen=True, slots=True)
class FetchResult:
    """Where the detector is, or None; and one line that says how it got there or why not."""

    path: Path | None
    reason: str


def _failed(reason: str) -> FetchResult:
    # What a server says may hold line ends.
    return FetchResult(None, " ".join(reason.split()))


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only where it stays on https (or, on loopback, on http)."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise OSError(f"{parts.scheme}://{parts.hostname} is not https")


def _download(url: str, limit_s: float, monotonic: Callable[[], float]) -> bytes:
    """The body at `url`, at most `MOST_BYTES`. Raises `OSError` in every case of failure."""
    end = monotonic() + limit_s
    _check_address(url)
    try:
        with urllib.request.build_opener(_SameScheme).open(url, timeout=limit_s) as response:
            body = bytearray()
            while chunk := response.read1(1 << 16):
                body += chunk
                if len(body) > MOST_BYTES:
                    raise OSError("the answer is far too large to be the file")
                if monotonic() > end:
                    raise TimeoutError(f"not finished within {limit_s:g} s")
            return bytes(body)
    except urllib.error.HTTPError as error:
        raise OSError(f"the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise OSError(f"no answer ({error.reason})") from None
    except (HTTPException, ValueError) as error:
        raise OSError(f"no proper answer ({error})") from None


def _download_within(url: str, limit_s: float, monotonic: Callable[[], float]) -> bytes:
    """`_download` that is over after `limit_s` whatever happens, a silent name server included."""
    outcome: list[bytes | OSError] = []

    def attempt() -> None:
        try:
            outcome.append(_download(url, limit_s, monotonic))
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, name="fetch", daemon=True)
    thread.start()
    thread.join(limit_s)
    if not outcome:
        raise TimeoutError(f"not finished within {limit_s:g} s")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def fetch_yunet(
    *,
    url: str = YUNET_URL,
    sha256: str = YUNET_SHA256,
    limit_s: float = 10.0,
    environ: Mapping[str, str] = os.environ,
    monotonic: Callable[[], float] = time.monotonic,
) -> FetchResult:
    """Make sure YuNet is at hand: from `FER_MODELS`, the data folder, or one download from `url`.

    The download takes at most `limit_s` seconds in all and is put in place only if its hash is
    right. A failure is a result with a reason: the Haar cascade will do. Raises `UserError` for a
    file in `FER_MODELS` that is not the pinned one.
    """
    named, own = environ.get("FER_MODELS"), data_folder(environ) / YUNET_FILE
    if named:
        path = Path(named).expanduser() / YUNET_FILE
        if path.is_file():
            fault = fault_of(path, sha256)
            if fault:
                raise UserError(f"FER_MODELS: {fault}; replace the file or unset FER_MODELS")
            return FetchResult(path, f"YuNet is in FER_MODELS: {path}")
    if own.is_file() and not fault_of(own, sha256):
        return FetchResult(own, f"YuNet is there already: {own}")
    host = urlsplit(url).hostname
    try:
        body = _download_within(url, limit_s, monotonic)
    except OSError as error:
        return _failed(f"YuNet was not downloaded from {host}: {error}")
    found = hashlib.sha256(body).hexdigest()
    if found != sha256:
        return _failed(f"what {host} sent is not the pinned YuNet (sha256 {found[:12]}…); not kept")
    try:
        write_atomic(own, lambda stream: stream.write(body))
    except OSError as error:
        return _failed(f"YuNet cannot be kept in {own.parent}: {error.strerror}")
    return FetchResult(own, f"YuNet was downloaded to {own}")
