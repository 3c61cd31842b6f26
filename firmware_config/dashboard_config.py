"""The part of a profile that is about the page: where it listens, and whom it answers."""

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from contract.access import LOGIN_S, host_name
from firmware_config.section import Section, live


class DashboardConfig(Section):
    """The page on the LAN."""

    enabled: bool = Field(True, description="Start the dashboard with the program.")
    host: str = Field(
        "127.0.0.1", description="Address it listens on; others need a token or a password."
    )
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 takes any free one.")
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Names the page may be asked for under, besides its addresses, localhost and "
        "this machine's own name. Others are refused (DNS rebinding).",
    )
    trusted_proxy: str | None = Field(
        None,
        description="Address of the reverse proxy before it, whose X-Forwarded-For and "
        "X-Forwarded-Proto are believed; needs a token or a password.",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate to serve HTTPS with; read anew when renewed."
    )
    tls_key: Path | None = Field(
        None, description="PEM file of the certificate's private key, unless it is in the same."
    )
    login_s: float = Field(
        LOGIN_S, ge=60, le=3.2e7, description="How long a login on the page lasts, seconds."
    )
    preview_fps: float = Field(
        12.0, gt=0, le=60, title="Live view, images per second",
        description="Most preview images per second.",
        json_schema_extra=live("/s"),
    )  # fmt: skip
    raw_view_s: float = Field(
        300.0, gt=0, le=3600, description="Seconds until a raw view turns itself off."
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host_name(name) for name in names)

    @field_validator("trusted_proxy")
    @classmethod
    def _address(cls, proxy: str | None) -> str | None:
        return None if proxy is None else str(ipaddress.ip_address(proxy))

    @model_validator(mode="after")
    def _pair(self) -> "DashboardConfig":
        if self.tls_key is not None and self.tls_certificate is None:
            raise ValueError("tls_key is of no use without tls_certificate; set both")
        return self
