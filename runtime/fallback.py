"""A session that goes on when its runtime fails in the middle of the work.

The golden check at the start cannot foresee everything: a GPU that resets, memory that runs out.
Then the next artifact is opened, checked and given the same faces. The order is the bundle's own,
best first and float last, on the CPU: another runtime for the same artifact, then another artifact.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Artifact, Bundle
from runtime import golden
from runtime.choose import Chosen
from runtime.errors import GoldenError, SessionError, UnavailableError
from runtime.session import BACKENDS, Backend, Session, open_session

log = logging.getLogger(__name__)


class FallbackSession:
    """The session of a choice, and what takes its place. Itself a `runtime.session.Session`."""

    def __init__(
        self,
        bundle: Bundle,
        chosen: Chosen,
        *,
        threads: int,
        backends: Sequence[Backend] = BACKENDS,
        models: Path | None = None,
    ) -> None:
        self._bundle, self._threads, self._models = bundle, threads, models
        self._session: Session = chosen.session
        self._closed = False
        self.artifact = chosen.artifact
        """The artifact at work."""
        self.failures = 0
        """Runs that failed; each was given to the next artifact."""
        self._reasons: list[str] = []
        at_work = (chosen.artifact.file, chosen.session.backend, chosen.session.device)
        self._left: Iterator[tuple[Artifact, Backend]] = iter(
            [
                (artifact, backend)
                for artifact in bundle.info.artifacts
                for backend in backends
                if (artifact.file, backend, "CPU") != at_work
            ]
        )

    @property
    def backend(self) -> Backend:
        """Of the session at work."""
        return self._session.backend

    @property
    def device(self) -> str:
        """Of the session at work."""
        return self._session.device

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each failure and each artifact that was tried and did not serve."""
        return tuple(self._reasons)

    def prepare(self, count: int) -> None:
        """See `runtime.session.Session.prepare`."""
        self._session.prepare(count)

    def run(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `runtime.session.Session.run`; it fails only when no artifact is left."""
        while True:
            try:
                return self._session.run(faces)
            except SessionError as error:
                if self._closed or not self._replace(error):
                    raise

    def close(self) -> None:
        """See `runtime.session.Session.close`."""
        self._closed = True
        self._session.close()

    def _note(self, reason: str) -> None:
        log.warning("%s", reason)
        self._reasons.append(reason)

    def _replace(self, error: SessionError) -> bool:
        """Put the next artifact that opens and passes its check to work; False if none is left."""
        self.failures += 1
        for artifact, backend in self._left:
            try:
                session = open_session(self._bundle, artifact, backend, self._threads, self._models)
            except UnavailableError:
                continue
            except SessionError as fault:
                self._note(str(fault))
                continue
            try:
                golden.check(session, self._bundle, artifact)
            except (SessionError, GoldenError) as fault:
                session.close()
                self._note(str(fault))
                continue
            self._note(f"{error}; {artifact.file} on {backend} has taken over")
            self._session.close()
            self._session, self.artifact = session, artifact
            return True
        if self.failures == 1 or not self._reasons[-1].endswith("nothing is left to take over"):
            self._note(f"{error}; nothing is left to take over")
        return False
