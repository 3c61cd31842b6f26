"""Certificates made for a test."""

import shutil
import subprocess
from pathlib import Path

OPENSSL = shutil.which("openssl")


def make_certificate(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    """A self-signed certificate for this machine, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    assert OPENSSL is not None
    encrypt = options or ("-nodes",)
    subprocess.run(
        [
            OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-days", "2", "-subj", f"/CN={name}", *encrypt,
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-out", str(certificate), "-keyout", str(key),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
