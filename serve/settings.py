"""Settings of the manager: defaults here, `DRAGONFLY_MANAGER_…` variables over them.

Those of the cluster itself (rates, limits) are not here: they are versioned in the database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.policy import UrlPolicy


class Retention(BaseModel):
    """Days after which rows go; 0: never."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audit: float = Field(365.0, ge=0)
    events: float = Field(7.0, ge=0)
    stats: float = Field(90.0, ge=0)
    jobs: float = Field(90.0, ge=0)
    """Of jobs that have ended, with their outcomes."""
    deliveries: float = Field(7.0, ge=0)


class Tokens(BaseModel):
    """Days that access tokens are good for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: float = Field(90.0, gt=0, le=36500)
    """Where the request names no expiry."""
    longest: float = Field(365.0, gt=0, le=36500)
    """The most that a request may name. Tokens that were made under another limit keep their expiry."""

    @model_validator(mode="after")
    def _ordered(self) -> Tokens:
        if self.default > self.longest:
            raise ValueError(f"tokens: default {self.default:g} exceeds longest {self.longest:g}")
        return self


class Limits(BaseModel):
    """In the notation of the `limits` library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: str = "1200/minute"
    """Of one user or token."""
    anonymous: str = "120/minute"
    """Of one address."""
    logins: str = "10/minute"
    """Attempts for one account, and from one address."""
    body: int = Field(1024 * 1024, gt=0)
    """Bytes of one request."""
    streams: int = Field(200, gt=0)
    """Open event streams of one replica."""
    user_streams: int = Field(50, gt=0)
    """Open event streams of one user, over all replicas."""


class ManagerSettings(BaseSettings):
    """What one replica of the manager is started with."""

    model_config = SettingsConfigDict(
        env_prefix="DRAGONFLY_MANAGER_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    state_dir: Path = Field(default_factory=lambda: Path.home() / ".dragonfly" / "manager")
    """The embedded database and the key that secrets are encrypted with, unless they are elsewhere."""
    database_url: str = ""
    """SQLAlchemy's; empty: SQLite in `state_dir`. Several replicas need PostgreSQL (`postgresql://…`)."""
    database_url_file: Path | None = None
    """In place of `database_url`: a file that holds it, on the nodes that replicas run on (PostgreSQL only)."""
    secret_key: SecretStr | None = None
    """32 bytes in URL-safe Base64; else `secret_key_file` is read, and made if it is missing."""
    secret_key_file: Path | None = None
    admin_password: SecretStr | None = Field(None, validation_alias="DRAGONFLY_ADMIN_PASSWORD")
    """Of the first user; without it and without a file one is made up, and written to `state_dir`."""
    admin_password_file: Path | None = None
    admin_password_hash: SecretStr | None = None
    """argon2, in place of the password itself: what `dragonfly up` hands over, so that nobody stores it in clear."""
    http_host: str = "127.0.0.1"
    """Where Ray Serve listens, `0.0.0.0` for everybody. Counts when Serve starts, as do the next three."""
    http_port: int = Field(8000, ge=0, le=65535)
    """0: any free one."""
    tls_cert_file: Path | None = None
    """With `tls_key_file`, on every node that serves: HTTPS."""
    tls_key_file: Path | None = None
    replicas: int = Field(1, ge=1)
    """More than one need PostgreSQL."""
    node_labels: dict[str, str] = {}
    """Ray labels of the nodes that replicas run on, such as those that have the files named above; none: any node."""
    session_hours: float = Field(12.0, gt=0)
    session_idle_hours: float = Field(2.0, gt=0)
    cookie_secure: bool = False
    """Sign-in cookies over HTTPS only. Set it where TLS ends in front of the manager."""
    public_url: str = ""
    """As people reach it, for links in webhooks and for the check of `Origin`."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses (CIDR) whose `X-Forwarded-For` is believed."""
    urls: UrlPolicy = UrlPolicy()
    """Which origins users may name."""
    webhook_urls: UrlPolicy = UrlPolicy(schemes=("https", "http"))
    dest_roots: tuple[str, ...] = ()
    """Folders on the nodes below which a `dest` may lie; none: no `dest` at all."""
    retention: Retention = Retention()
    tokens: Tokens = Tokens()
    limits: Limits = Limits()

    @field_validator("urls", "webhook_urls", mode="before")
    @classmethod
    def _policy(cls, value: Any, info: ValidationInfo) -> Any:
        """From variables, one a member: lists are JSON there. What is left out is as by default."""
        if not isinstance(value, Mapping):
            return value
        assert info.field_name
        default: UrlPolicy = cls.model_fields[info.field_name].default
        given = {
            k: json.loads(v) if isinstance(v, str) and v.startswith("[") else v for k, v in value.items()
        }
        return asdict(default) | given

    @property
    def database(self) -> str:
        """The URL of the database, with the driver that is used."""
        given = self.database_url
        if self.database_url_file is not None:
            try:
                given = self.database_url_file.read_text().strip()
            except (OSError, UnicodeDecodeError):
                raise InvalidRequestError(f"{self.database_url_file}: cannot read the database URL") from None
        if not given:
            return f"sqlite:///{self.state_dir / 'manager.db'}"
        for short in ("postgresql://", "postgres://"):
            if given.startswith(short):
                return "postgresql+psycopg://" + given.removeprefix(short)
        return given

    @property
    def embedded(self) -> bool:
        """Whether the database is a file on the head node; known without reading `database_url_file`."""
        return self.database_url_file is None and self.database.startswith("sqlite")
