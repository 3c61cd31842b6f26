"""What the program says while it runs: text for people, JSON lines for a journal.

On a terminal each record is a line of text with the local time. Under systemd it is a line of JSON
with the time in UTC. A line that repeats is said once; how often it came again is said after it.
No secret is in either (see `edge.masking`).
"""

import json
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TextIO, get_args

from contract.errors import UserError, nearest
from edge.masking import Mask, configured_secrets

VARIABLE = "FER_LOG"
WINDOW_S = 30.0
"""For this long a line is not said again."""
NEWS = "news"
"""Attribute of a record (`extra={NEWS: True}`) that is said however soon it comes again."""
MOST_REMEMBERED = 200
"""Lines remembered at most, so that lines that never repeat cost no memory."""

LogForm = Literal["text", "json", "auto"]


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Does systemd read this stream?"""
    try:
        descriptor = stream.fileno()
        status = os.fstat(descriptor)
    except (OSError, ValueError):  # a stream without a file behind it
        return False
    journal = environ.get("JOURNAL_STREAM")
    if journal is not None:
        # Children of a service inherit the variable: only the stream it names is the journal's.
        return journal == f"{status.st_dev}:{status.st_ino}"
    return "INVOCATION_ID" in environ and not os.isatty(descriptor)


def chosen_form(
    form: str | None, stream: TextIO, environ: Mapping[str, str] = os.environ
) -> Literal["text", "json"]:
    """The form of the log: the flag's, else `FER_LOG`'s, else by who reads the stream.

    Raises `UserError` for a form that does not exist.
    """
    wanted = form or environ.get(VARIABLE) or "auto"
    known = get_args(LogForm)
    if wanted not in known:
        place = "--log" if form else VARIABLE
        raise UserError(f"{place} {wanted}: no such form{nearest(wanted, known)} (text json auto)")
    if wanted == "auto":
        return "json" if _is_journal(stream, environ) else "text"
    return "json" if wanted == "json" else "text"


class _Text(logging.Formatter):
    def __init__(self, mask: Mask) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return self._mask(super().format(record))


class _Json(logging.Formatter):
    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._mask(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self._mask(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


@dataclass
class _Said:
    """A line that was said, when first, and how often it came again since."""

    record: logging.LogRecord
    at_s: float
    again: int = 0


class LogHandler(logging.Handler):
    """Writes records to a stream, each line once in `window_s` seconds.

    The same line is the same logger, level and text. That it came again is said as soon as the
    window is over and anything is logged at all, or at the end. Without a `stream` it is whatever
    `sys.stderr` is at the time.
    """

    def __init__(
        self,
        form: Literal["text", "json"],
        mask: Mask,
        *,
        stream: TextIO | None = None,
        window_s: float = WINDOW_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._stream, self._window_s, self._monotonic = stream, window_s, monotonic
        self._said: OrderedDict[tuple[str, int, str], _Said] = OrderedDict()
        self.mask = mask
        self.use(form)

    def use(self, form: Literal["text", "json"]) -> None:
        """Write in this form from now on."""
        self.setFormatter(_Json(self.mask) if form == "json" else _Text(self.mask))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless its line was said just now."""
        try:
            now = self._monotonic()
            self._tell_repeats(before_s=now - self._window_s)
            key = (record.name, record.levelno, record.getMessage())
            if key in self._said and not getattr(record, NEWS, False):
                self._said[key].again += 1
                return
            self._said.setdefault(key, _Said(record, now))
            if len(self._said) > MOST_REMEMBERED:
                self._tell(self._said.popitem(last=False)[1])
            self._write(record)
        except Exception:
            # As every handler of the logging module: a log that cannot be written ends nothing.
            self.handleError(record)

    def _write(self, record: logging.LogRecord) -> None:
        stream = self._stream or sys.stderr
        if stream is not None:  # there is none where a program was started without
            stream.write(self.format(record) + "\n")
            stream.flush()

    def _tell_repeats(self, before_s: float) -> None:
        """Forget the lines first said before a time, and say how often each came again."""
        while self._said:
            key, oldest = next(iter(self._said.items()))
            if oldest.at_s > before_s:
                return
            del self._said[key]
            self._tell(oldest)

    def _tell(self, said: _Said) -> None:
        if not said.again:
            return
        first = said.record
        times = "once" if said.again == 1 else f"{said.again} times"
        text = f"last message repeated {times}: {first.getMessage()}"
        self._write(
            logging.LogRecord(first.name, first.levelno, first.pathname, 0, text, None, None)
        )

    def close(self) -> None:
        """Say what is still to be said."""
        self.acquire()
        try:
            self._tell_repeats(before_s=float("inf"))
        except (OSError, ValueError):
            self._said.clear()  # the stream is closed already; nobody is there to read it
        finally:
            self.release()
        super().close()


def set_up(
    form: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    root: logging.Logger | None = None,
) -> None:
    """Log to stderr from here on; called again it changes the form.

    A root logger that somebody else has set up is left as it is. Raises `UserError` for a form that
    does not exist.
    """
    root = root or logging.getLogger()
    chosen = chosen_form(form, sys.stderr, environ)
    own = _own_handler(root)
    if own is not None:
        own.use(chosen)
    elif not root.handlers:
        root.addHandler(LogHandler(chosen, Mask(configured_secrets(environ))))
        root.setLevel(logging.INFO)


def hide(*secrets: str, root: logging.Logger | None = None) -> None:
    """Keep these out of everything logged from here on."""
    own = _own_handler(root or logging.getLogger())
    if own is not None:
        own.mask.hide(*secrets)


def _own_handler(root: logging.Logger) -> LogHandler | None:
    return next((h for h in root.handlers if isinstance(h, LogHandler)), None)
