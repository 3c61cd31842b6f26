"""What can go wrong with an opened model; each is one line for a log."""


class SessionError(Exception):
    """A runtime that cannot open or run an artifact."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split())[:400])


class UnavailableError(SessionError):
    """A runtime that is not installed here, or does not read this format: nothing is broken."""


class GoldenError(Exception):
    """An artifact that opens, but does not answer as the float model of its bundle does."""
