"""Certificate files for a page that is served over TLS."""

import ssl
from pathlib import Path

from contract.errors import UserError


def _no_password() -> str:
    # Without this, OpenSSL would ask on the terminal, and a service would wait there for ever.
    raise ValueError("the key is encrypted; decrypt it with: openssl pkey -in KEY -out PLAIN")


def server_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """The server's side of TLS 1.2 or newer, after Python's own defaults.

    `certificate` is a PEM file: the server's certificate, then those it is signed with. `key` is
    the PEM file of its private key (None: it is in the first file too). Raises `UserError` for
    files that are no certificate with its key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    place = f"TLS certificate {certificate}" + (f" with key {key}" if key else "")
    try:
        context.load_cert_chain(certificate, key, _no_password)
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise UserError(
            f"{place}: not a PEM certificate and the private key it belongs to ({reason})"
        ) from None
    except OSError as error:
        raise UserError(f"{place}: not readable ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    return context
