"""Which bundle runs: the one that is named, or the one that is built in."""

from pathlib import Path

from contract.bundle import Bundle, open_bundle

DEFAULT_BUNDLE = Path(__file__).parent / "default_bundle"


def bundle_to_run(folder: Path | None) -> Bundle:
    """Open the named bundle, or the default one. Raises `UserError` as `open_bundle` does."""
    return open_bundle(folder or DEFAULT_BUNDLE)
