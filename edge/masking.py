"""What must never be read in a log or in a support bundle: passwords, tokens, and where they hide.

Addresses lose user, password, query, and `key=value` parts of their path, wherever in a text they
stand; secrets that are configured are hidden wherever they turn up.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from contract.secret_settings import CREDENTIALS_VARIABLE

HIDDEN = "…"
SHORTEST = 4
"""A shorter secret is not looked for: it would be found in every other word."""
_SECRET_NAME = re.compile(r"token|passw|secret|credential|api_?key", re.IGNORECASE)
_ADDRESS = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*)://(\S*)")


def _without_secrets(address: re.Match[str]) -> str:
    # Everything before the last @ goes: passwords in the wild hold unescaped /, # and ?.
    rest = address[2].rpartition("@")[2]
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    path = "/".join(HIDDEN if "=" in part else part for part in rest.split("/"))
    return f"{address[1]}://{path}"


class Mask:
    """Hides secrets in texts. `hide` adds one; it may be called at any time from any thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: tuple[str, ...] = ()
        self.hide(*secrets)

    def hide(self, *secrets: str) -> None:
        """Hide these from now on; those shorter than `SHORTEST` characters are left alone."""
        known = {*self._secrets, *(s for s in secrets if len(s) >= SHORTEST)}
        # The longest first, so that one that holds another goes whole.
        self._secrets = tuple(sorted(known, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """The text without what is secret."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _ADDRESS.sub(_without_secrets, text)

    def tree(self, value: Any) -> Any:
        """JSON values with every string masked, and whole values hidden under a secret's name."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {
                self(str(key)): HIDDEN
                if _SECRET_NAME.search(str(key)) and inner not in (None, "")
                else self.tree(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.tree(inner) for inner in value]
        return value


def configured_secrets(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Tokens and passwords of this project's own variables, of the files they name, and those that
    systemd hands over.

    A file that cannot be read gives none: whoever needs it says so.
    """
    found = list(_credentials(environ))
    for name, value in environ.items():
        if not name.startswith("FER_") or not _SECRET_NAME.search(name):
            continue
        if name.endswith("_FILE"):
            try:
                value = Path(value).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
        found.append(value.strip())
    return found


def _credentials(environ: Mapping[str, str]) -> Iterable[str]:
    """This program's systemd credentials."""
    folder = environ.get(CREDENTIALS_VARIABLE)
    for file in sorted(Path(folder).glob("fer-*")) if folder else ():
        try:
            yield file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue


def credentials_of(address: str) -> list[str]:
    """User and password in a camera's address, together and the password alone; else nothing."""
    before, at, _ = address.partition("://")[2].rpartition("@")
    if not at:
        return []
    return [part for part in (before, before.partition(":")[2]) if part]
