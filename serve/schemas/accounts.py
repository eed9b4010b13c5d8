"""Users, roles, tokens, secrets, sign-in, audit."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from dragonfly_ray.ambient_credentials import check_options
from dragonfly_ray.errors import SourceForbiddenError
from dragonfly_ray.serve.accounts import hosts
from dragonfly_ray.serve.permissions import Permission
from dragonfly_ray.serve.schemas.base import In, Name, Out, Slug, Text

HeaderName = Annotated[
    str, StringConstraints(min_length=1, max_length=256, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
]
HostPattern = Annotated[
    str, StringConstraints(min_length=1, max_length=256, pattern=r"^[0-9A-Za-z._*:\[\]-]+$")
]


def _one_line(value: SecretStr) -> SecretStr:
    if any(ord(c) < 32 or ord(c) == 127 for c in value.get_secret_value()):
        raise ValueError("control characters")
    return value


HeaderValue = Annotated[SecretStr, Field(max_length=8192), AfterValidator(_one_line)]
Password = Annotated[SecretStr, Field(min_length=12, max_length=256)]


class SignIn(In):
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    password: Annotated[SecretStr, Field(min_length=1, max_length=256)]


class Me(Out):
    """Who is signed in. `csrf`: to be sent as `X-CSRF-Token` with whatever changes something."""

    user_id: str
    name: str
    role: str
    permissions: list[Permission]
    via: str
    csrf: str | None = None


class PasswordChange(In):
    old: Annotated[SecretStr, Field(min_length=1, max_length=256)]
    new: Password


class UserCreate(In):
    name: Name
    role: Slug
    password: Password | None = Field(None, description="Default: no sign-in by password, tokens only.")


class UserChange(In):
    role: Slug | None = None
    password: Password | None = None
    disabled: bool | None = None


class User(Out):
    id: str
    name: str
    role: str
    disabled: bool
    version: int
    created_at: datetime
    updated_at: datetime
    last_seen_at: datetime | None


class PermissionInfo(Out):
    name: Permission
    description: str


class RoleIn(In):
    description: Text = ""
    permissions: list[Permission]


class RoleCreate(RoleIn):
    name: Slug


class Role(Out):
    name: str
    description: str
    permissions: list[Permission]
    builtin: bool
    version: int
    users: int = 0
    created_at: datetime
    updated_at: datetime


class TokenCreate(In):
    name: Name
    permissions: list[Permission] | None = Field(None, description="Default: all permissions of its owner.")
    expires_in: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Seconds; default: the manager's setting (90 days). More than its limit (a year) is rejected.",
    )


class Token(Out):
    id: str
    name: str
    prefix: str
    user_id: str
    user: str
    permissions: list[Permission]
    created_at: datetime
    expires_at: datetime | None = Field(
        description="null: never. Only of tokens from before every token had an end; replace them."
    )
    revoked_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str


class TokenCreated(Token):
    token: str = Field(description="Shown this once.")


class SecretIn(In):
    """Credentials of a source. Values are encrypted, and given out by no route."""

    description: Text = ""
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=50)] = {}
    storage_options: Annotated[
        dict[Annotated[str, StringConstraints(min_length=1, max_length=256)], Any], Field(max_length=50)
    ] = Field({}, description="fsspec options of the protocol, such as `key` and `secret`.")
    hosts: Annotated[list[HostPattern], Field(min_length=1, max_length=100)] = Field(
        description="Hosts (`host`, `host:port`, `*.domain`) or buckets (`models`, `team-*`) that it may be sent to. "
        "Hosts that its storage options lead to, such as `endpoint_url`, must be among them.",
    )
    allow_http: bool = Field(
        False, description="Whether it may be sent without TLS, readable to everybody on the way."
    )

    @model_validator(mode="after")
    def _something(self) -> SecretIn:
        if not self.headers and not self.storage_options:
            raise ValueError("set headers, storage_options or both")
        return self

    @model_validator(mode="after")
    def _somewhere(self) -> SecretIn:
        for host in self.hosts:
            if not hosts.named(host):
                raise ValueError(f"hosts: {host!r} matches every host; list the hosts that it may be sent to")
        if outside := hosts.beyond(self.hosts, self.storage_options):
            raise ValueError(f"storage_options: the host of {outside[0]!r} is not among hosts")
        if not self.allow_http and (clear := hosts.in_clear(self.storage_options)):
            raise ValueError(f"storage_options: {clear[0]!r} is not https; set allow_http to permit it")
        return self

    @model_validator(mode="after")
    def _of_no_node(self) -> SecretIn:
        try:
            check_options(self.storage_options)
        except SourceForbiddenError as error:
            raise ValueError(str(error)) from None
        return self


class SecretCreate(SecretIn):
    name: Name


class Secret(Out):
    name: str
    description: str
    fields: list[str] = Field(description="Names of its headers and options, without values.")
    hosts: list[str]
    allow_http: bool
    disabled: str | None = Field(description="Why it is disabled until it is replaced; null: enabled.")
    may_use: bool = Field(description="Whether the caller may use it in a job.")
    may_keep: bool = Field(description="Whether the caller may replace, grant and delete it.")
    created_by: str = Field(description="The name of its owner.")
    version: int
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None


class SecretServer(Out):
    server: str = Field(
        description="Of the identity of sources that are opened with it: one-way, empty where only the URL chooses."
    )


class SecretGrants(In):
    """Who may name a secret in jobs, besides its owner and whoever has `secrets:admin`. All of them: what is
    left out is taken away."""

    users: Annotated[list[Name], Field(max_length=1000)] = Field([], description="Names.")
    roles: Annotated[list[Slug], Field(max_length=100)] = []


class AuditEntry(Out):
    id: int
    at: datetime
    actor_id: str
    actor: str
    via: str
    token_id: str
    address: str
    request_id: str
    action: str
    resource_type: str
    resource_id: str
    outcome: str
    detail: dict[str, Any]
