"""What may change while the program runs: keys of the profile that are marked live, and raw view.

They are changed one by one by whoever watches, or together by reading the profile again. What is
wrong changes nothing. The loop takes the newest profile before each frame.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from contract.errors import UserError, nearest
from contract.validation import explain
from firmware_config.keys import keys, values_of
from firmware_config.profile import SMOOTHING_PRESETS, Profile

RAW_VIEW = "raw_view"
"""Faces are shown as they are, for a limited time: no key of the profile, and off at the start."""

log = logging.getLogger(__name__)


def _with(profile: Profile, changes: Mapping[str, Any]) -> Profile:
    """A profile with some keys changed; `"0.5"` is no number here, and 1 is not true.

    A preset fills what the request does not set, whatever was set before.
    """
    content = profile.model_dump()
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        content[section][key] = value
    preset = changes.get("smoothing.preset")
    for key in SMOOTHING_PRESETS.get(preset, {}) if isinstance(preset, str) else ():
        if f"smoothing.{key}" not in changes:
            del content["smoothing"][key]
    return Profile.model_validate(content, strict=True)


class LiveSettings:
    """The profile as it is now. Any thread may ask or change."""

    def __init__(
        self,
        profile: Profile,
        read: Callable[[], Profile],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` gives the profile as its file and the flags say now, or raises `UserError`."""
        self._read, self._clock = read, clock
        self._keys = keys()
        self._live = [name for name, key in self._keys.items() if key.live]
        self._lock = threading.Lock()
        self._started = self._profile = profile
        self._shown = self._values(profile)
        """What the page asks for many times a second is not worked out anew each time."""
        self._raw_until = float("-inf")
        self.problem: str | None = None
        """Why the profile that was read last is not the one that runs, in one line, or None."""
        self.restart: tuple[str, ...] = ()
        """Keys that the file has changed since the start, for which a restart is needed."""
        self.reload_asked = False
        """Set by a signal's handler, which must not wait for anything; the loop then reloads."""

    @property
    def profile(self) -> Profile:
        """The profile with what has changed; another object only if something has."""
        return self._profile

    @property
    def raw_view(self) -> bool:
        """Whether faces are shown as they are now."""
        return self._clock() < self._raw_until

    @property
    def note(self) -> str:
        """What is not as the profile says, in one line; empty if nothing is."""
        if self.problem:
            return self.problem
        if self.restart:
            return f"the profile has changed; restart to use its {', '.join(self.restart)}"
        return ""

    def schema(self) -> dict[str, Any]:
        """JSON schema of an object with all that may change, by dotted name."""
        raw_view = {
            "type": "boolean", "default": False, "title": "Show faces",
            "description": "Show faces as they are, for a limited time.", "live": True,
        }  # fmt: skip
        live = {name: self._keys[name].schema for name in self._live}
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {RAW_VIEW: raw_view, **live},
        }

    def values(self) -> dict[str, Any]:
        """What is set now, by the names of the schema."""
        return {RAW_VIEW: self.raw_view, **self._shown}

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set some of them, all or none. Raises `UserError` for a name or value that cannot be."""
        for name, value in changes.items():
            if name == RAW_VIEW:
                if not isinstance(value, bool):
                    raise UserError(f"settings: {name}: give true or false, not {value!r:.40}")
            elif name not in self._keys:
                hint = nearest(name, [RAW_VIEW, *self._live])
                raise UserError(f"settings: unknown key '{name[:40]}'{hint}")
            elif name not in self._live:
                raise UserError(
                    f"settings: {name} is read at the start only; change the profile and restart"
                )
        with self._lock:
            named = {name: value for name, value in changes.items() if name != RAW_VIEW}
            try:
                self._take(_with(self._profile, named))
            except ValidationError as error:
                raise explain(error, Profile, "settings") from None
            if RAW_VIEW in changes:
                self._show(changes[RAW_VIEW])

    def reload(self) -> None:
        """Read the profile again and take its live keys. Raises `UserError` for a wrong one.

        Then the old one stays, and `problem` says why.
        """
        with self._lock:
            try:
                read = self._read()
            except UserError as error:
                self.problem = f"the profile was not taken, the old one runs on: {error}"
                log.error("%s", self.problem)
                raise
            self.problem = None
            asked, started = values_of(read), values_of(self._started)
            self.restart = tuple(
                name
                for name in self._keys
                if name not in self._live and asked[name] != started[name]
            )
            self._take(_with(self._started, self._values(read)))
            log.info("profile read again%s", f"; {self.note}" if self.note else "")

    def _values(self, profile: Profile) -> dict[str, Any]:
        every = values_of(profile)
        return {name: every[name] for name in self._live}

    def _take(self, profile: Profile) -> None:
        before, after = self._shown, self._values(profile)
        changed = [name for name in self._live if after[name] != before[name]]
        if changed:
            self._profile, self._shown = profile, after
            said = (f"{name} = {json.dumps(after[name])}" for name in changed)
            log.info("settings changed: %s", ", ".join(said))

    def _show(self, raw: bool) -> None:
        self._raw_until = float("-inf")
        if raw:
            lasts_s = self._profile.dashboard.raw_view_s
            self._raw_until = self._clock() + lasts_s
            log.warning("raw view switched on for %g s", lasts_s)
