"""Whose credentials open a source that is fetched on a user's behalf: those that were given, or nobody's.

Filesystems look for credentials by themselves: variables, files and profiles of the node, the metadata service of its
cloud. What a user may fetch does not follow from what the node may, so under a `UrlPolicy` they are told not to look,
unless `UrlPolicy.ambient_credentials` names the scheme; and storage options that name files, profiles or commands of
the node are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dragonfly_ray.errors import SourceForbiddenError
from dragonfly_ray.policy import UrlPolicy, walk
from dragonfly_ray.urls import redacted, scheme

S3, GCS, AZURE = (frozenset(each) for each in (("s3", "s3a"), ("gs", "gcs"), ("az", "abfs", "abfss")))
WITHOUT = frozenset({"http", "https", "file", "local", "memory", "ftp"})
"""Schemes whose filesystems have no credentials but those in the options and the URL."""
_COMMON = frozenset({"default_block_size", "default_fill_cache", "default_cache_type", "max_concurrency", "version_aware",
                     "requester_pays", "endpoint_url", "anon"})  # fmt: skip
_OPTIONS: Mapping[frozenset[str], frozenset[str]] = {
    S3: _COMMON | {"key", "secret", "token", "username", "password", "use_ssl", "client_kwargs", "config_kwargs",
                   "s3_additional_kwargs", "cache_regions", "fixed_upload_size", "local_expiry_check"},
    GCS: _COMMON | {"token", "project", "access", "consistency", "block_size", "timeout", "default_location",
                    "secure_serialize", "check_connection", "retry_reads"},
    AZURE: _COMMON | {"account_name", "account_key", "connection_string", "credential", "sas_token", "client_id",
                      "client_secret", "tenant_id", "location_mode", "account_host", "blocksize", "timeout",
                      "connection_timeout", "read_timeout", "assume_container_exists"},
}  # fmt: skip
"""What may be given; everything else might be a way to the node's own."""
_NODE = re.compile(
    r"(^|_)(profile|session|session_vars|loader|command|executable|credential_(source|process)|keytab|kerb\w*|krb\w*|"
    r"cafile|capath|ca_bundle|ca_certs|(client_)?cert|pem|known_hosts|extra_conf)$|file(name)?s?$|_path$|_dir$"
)
"""Names of options, at any depth, that mean something on the node: a file, a profile, a command, an object."""
_SWITCHES = frozenset({"ssl", "verify", "verify_ssl", "ssl_verify"})
"""True or false; anything else would be a file."""
_PATH = re.compile(r"(/|~|\.{1,2}/|file:|[A-Za-z]:\\)")
_SECRETS = frozenset({"secret", "password", "account_key", "aws_secret_access_key", "aws_session_token", "token", "key",
                      "sas_token", "credential", "private_key", "client_secret", "refresh_token",
                      "connection_string"})  # fmt: skip
"""Options whose values are Base64 or the like, and may begin as a path does."""
_GOOGLE_TOKEN = re.compile(r"ya29\.[\w.-]+")
_GOOGLE_TOKEN_URIS = frozenset(
    {"https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token"}
)
_AZURE_CREDENTIALS = (
    "connection_string",
    "account_key",
    "sas_token",
    "client_id",
    "client_secret",
    "tenant_id",
    "credential",
)
_AZURE_VARIABLES = ("connection_string", "account_key", "sas_token", "client_id", "client_secret")


def check_options(options: Mapping[str, object]) -> None:
    """Refuses storage options that name files, profiles or commands of the node. Raises `SourceForbiddenError`."""
    for name, value in walk(options):
        shown = f"storage option {name!r}"
        if name in _SWITCHES:
            if value is not None and not isinstance(value, bool):
                raise SourceForbiddenError(
                    f"{shown}: must be true or false; paths on the node are not allowed"
                )
        elif _NODE.search(name):
            raise SourceForbiddenError(
                f"{shown}: refers to something on the node; pass the credentials themselves"
            )
        elif isinstance(value, str) and name not in _SECRETS and _PATH.match(value):
            raise SourceForbiddenError(f"{shown}: paths on the node are not allowed")


def check_scheme(url: str, policy: UrlPolicy) -> None:
    """Refuses a URL that only the node's own credentials could open. Raises `SourceForbiddenError`."""
    protocol = scheme(url)
    if protocol not in WITHOUT and not _named(protocol, policy) and _family(protocol) is None:
        raise SourceForbiddenError(
            f"{redacted(url)}: {protocol!r} would use the node's ambient credentials; to allow that, add it to "
            "urls.ambient_credentials"
        )


def own_options(
    url: str, options: Mapping[str, object], policy: UrlPolicy, environment: Mapping[str, str]
) -> dict[str, Any]:
    """What to add to the storage options so that nothing of the node's own is used.

    `environment`: of the process that opens the source. Raises `SourceForbiddenError`.
    """
    check_options(options)
    check_scheme(url, policy)
    protocol = scheme(url)
    family = _family(protocol)
    if family is None:
        return {}
    if strange := sorted(options.keys() - _OPTIONS[family]):
        raise SourceForbiddenError(
            f"storage option {strange[0]!r}: not allowed with {protocol} by the URL policy"
        )
    if family == GCS:
        _check_google(options.get("token"), named=_named(protocol, policy))
    if family == AZURE:
        _together(options, "client_id", "client_secret", "tenant_id")
    if _named(protocol, policy):
        return {}
    if family == S3:
        # Named, though nothing: fsspec fills in from its own configuration what is not.
        return {"token": options.get("token")} if _has_keys(options) else {"anon": True}
    if family == GCS:
        return {} if options.get("token") else {"token": "anon"}
    _check_azure(url, options, environment)
    return {"anon": True, **{name: options.get(name) for name in _AZURE_CREDENTIALS}}


def _named(protocol: str, policy: UrlPolicy) -> bool:
    named = {each.lower() for each in policy.ambient_credentials}
    return bool(named & (_family(protocol) or {protocol}))


def _family(protocol: str) -> frozenset[str] | None:
    """All names of the same filesystem; None: one that cannot be told to use no credentials."""
    return next((each for each in _OPTIONS if protocol in each), None)


def _has_keys(options: Mapping[str, object]) -> bool:
    inner = options.get("client_kwargs")
    found = {**(inner if isinstance(inner, Mapping) else {}), **options}
    key = found.get("key") or found.get("username") or found.get("aws_access_key_id")
    secret = found.get("secret") or found.get("password") or found.get("aws_secret_access_key")
    if bool(key) != bool(secret):
        raise SourceForbiddenError("storage options 'key' and 'secret': set both or neither")
    return bool(key)


def _check_google(token: object, *, named: bool) -> None:
    """Other texts are files, or ways to the node's own."""
    if isinstance(token, Mapping):
        if str(token.get("token_uri") or "") not in _GOOGLE_TOKEN_URIS | {""}:
            raise SourceForbiddenError("storage option 'token_uri': must be a Google endpoint")
        return
    known = {"", "anon", "google_default", "cloud"} if named else {"", "anon"}
    if isinstance(token, str) and token not in known and not _GOOGLE_TOKEN.fullmatch(token):
        raise SourceForbiddenError("storage option 'token': give an access token, or the key file's content")


def _check_azure(url: str, options: Mapping[str, object], environment: Mapping[str, str]) -> None:
    """The filesystem takes what the options leave out from variables, whatever `anon` says."""
    if options.get("connection_string"):
        return
    for name in _AZURE_VARIABLES:
        variable = f"AZURE_STORAGE_{name.upper()}"
        if environment.get(variable) and not options.get(name):
            raise SourceForbiddenError(
                f"{redacted(url)}: the node's environment variable {variable} would be used; unset it, or add the protocol to "
                "urls.ambient_credentials"
            )


def _together(options: Mapping[str, object], *names: str) -> None:
    if 0 < sum(bool(options.get(name)) for name in names) < len(names):
        raise SourceForbiddenError(f"storage options {', '.join(names)}: set all or none")
