"""Which bundle runs: the named one, else the installed one, else the built-in one."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from contract.bundle import Bundle, open_bundle
from contract.errors import UserError
from contract.store import BundleStore
from edge.detector_files import data_folder

DEFAULT_BUNDLE = Path(__file__).parent / "default_bundle"

log = logging.getLogger(__name__)


def store_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where bundles are installed.

    `FER_STORE`, or `bundles` in the state folder systemd gives a service, or the user's own data
    folder (`$XDG_DATA_HOME/fer-edge`).
    """
    if environ.get("FER_STORE"):
        return Path(environ["FER_STORE"]).expanduser()
    if environ.get("STATE_DIRECTORY"):
        # systemd joins several by colons; the first is the service's main one.
        return Path(environ["STATE_DIRECTORY"].partition(":")[0]) / "bundles"
    return data_folder(environ).parent


def bundle_to_run(folder: Path | None) -> Bundle:
    """Open the named bundle, else the installed one, else the built-in one.

    Raises `UserError` as `open_bundle` does, for a damaged installed one too: figures measured on
    another bundle than the user's own would mislead.
    """
    if folder is not None:
        return open_bundle(folder)
    return BundleStore(store_folder()).current() or open_bundle(DEFAULT_BUNDLE)


def bundle_for_box(folder: Path | None) -> tuple[Bundle, str]:
    """`bundle_to_run` for the box, which goes on working; the second value is a note, or empty.

    Where the installed bundle is damaged the built-in one runs; the note, which is logged too, says
    why. Raises `UserError` for a named bundle that does not open.
    """
    try:
        return bundle_to_run(folder), ""
    except UserError as error:
        if folder is not None:
            raise
        note = f"the built-in bundle runs in place of the installed one: {error}"
    log.warning("%s", note)
    return open_bundle(DEFAULT_BUNDLE), note
