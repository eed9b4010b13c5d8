"""What a request must be before any work begins: everything that can be known now is refused now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

from sqlalchemy import select

from dragonfly_ray.ambient_credentials import check_scheme
from dragonfly_ray.checksums import parse_digest
from dragonfly_ray.distribution import told_apart
from dragonfly_ray.errors import InvalidRequestError, SourceForbiddenError
from dragonfly_ray.output_names import check_outputs
from dragonfly_ray.policy import UrlPolicy, check_url
from dragonfly_ray.serve.accounts import grants, secrets
from dragonfly_ray.serve.cluster import Cluster
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import Node, Secret
from dragonfly_ray.serve.jobs.orders import OPTIONS
from dragonfly_ray.serve.permissions import Permission
from dragonfly_ray.serve.principal import Principal
from dragonfly_ray.serve.problems import Problem, invalid
from dragonfly_ray.serve.schemas.base import Failure
from dragonfly_ray.serve.schemas.jobs import DistributionCreate, Kind, Nodes, PreheatCreate
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.targets import Selector, check_dest
from dragonfly_ray.urls import redacted

MOST_OUTCOMES = 200_000
"""URLs times nodes of one job."""


class Around(Protocol):
    """Of the manager, what a check needs."""

    @property
    def settings(self) -> ManagerSettings: ...
    @property
    def cluster(self) -> Cluster: ...
    @property
    def database(self) -> Database: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that was found good, with the nodes that it means."""

    kind: Kind
    name: str
    urls: tuple[str, ...] = field(repr=False)
    nodes: Nodes
    targets: tuple[str, ...]
    names: Mapping[str, str]
    """Node id -> name, of the targets."""
    dest: str
    options: Mapping[str, Any]
    secret: str


def plan(around: Around, principal: Principal, body: DistributionCreate | PreheatCreate) -> Plan:
    """Raises `Problem` with all that is wrong, `ClusterError` where the cluster does not answer."""
    found, wrong = examined(around, principal, body)
    if wrong:
        raise refusal(wrong)
    return found


def refusal(wrong: Sequence[Failure]) -> Problem:
    return invalid(wrong[0].message, wrong[0].kind, errors=[each.model_dump() for each in wrong])


def examined(
    around: Around, principal: Principal, body: DistributionCreate | PreheatCreate
) -> tuple[Plan, list[Failure]]:
    """The plan, and what is wrong with it. Only a plan with nothing wrong may be carried out."""
    wrong = static(around, principal, body)
    targets: list[str] = []
    try:
        targets = around.cluster.select(selector(body.nodes), _cordoned(around.database))
    except InvalidRequestError as error:
        wrong.append(_failure(error))
    if len(targets) * len(body.urls) > MOST_OUTCOMES:
        wrong.append(Failure(kind="too-large", message=f"{len(body.urls)} URLs on {len(targets)} nodes exceed the limit of "
                             f"{MOST_OUTCOMES} outcomes in one job"))  # fmt: skip
    views = around.cluster.nodes() if targets else []
    names = told_apart({v.node_id: v.name or v.node_id[:12] for v in views})
    return Plan(
        kind="distribution" if isinstance(body, DistributionCreate) else "preheat",
        name=body.name,
        urls=tuple(body.urls),
        nodes=body.nodes,
        targets=tuple(targets),
        names={n: names.get(n) or n[:12] for n in targets},
        dest=(body.dest or "") if isinstance(body, DistributionCreate) else "",
        options={name: getattr(body, name) for name in OPTIONS if hasattr(body, name)},
        secret=body.secret or "",
    ), wrong


def _cordoned(database: Database) -> list[str]:
    """As it was decided here: a controller that has just restarted knows nothing of it."""
    with database.read() as session:
        return list(session.scalars(select(Node.node_id).where(Node.cordoned | Node.draining)))


def static(around: Around, principal: Principal, body: DistributionCreate | PreheatCreate) -> list[Failure]:
    """What is wrong with it whatever the cluster looks like."""
    return [*_static(around.settings, body), *_secret(around.database, principal, body)]


def selector(nodes: Nodes) -> Selector:
    """The wire's form is the cluster's."""
    return nodes


def _failure(error: InvalidRequestError | SourceForbiddenError, kind: str = "") -> Failure:
    return Failure(kind=kind or error.kind, message=str(error))


def _static(settings: ManagerSettings, body: DistributionCreate | PreheatCreate) -> Iterator[Failure]:
    good = True
    for url in body.urls:
        try:
            check_source(url, settings.urls)
        except (InvalidRequestError, SourceForbiddenError) as error:
            good = False
            yield _failure(error, "url-refused")
    if body.digest:
        try:
            parse_digest(body.digest)
            if body.urls[0].endswith("/"):
                raise InvalidRequestError("digest: allowed for a single file only, not for a directory")
        except InvalidRequestError as error:
            yield _failure(error)
    if isinstance(body, DistributionCreate) and body.dest is not None and good:
        try:
            check_placed(body.dest, body.urls, settings.dest_roots)
        except InvalidRequestError as error:
            yield _failure(error, "dest-refused")


def check_source(url: str, policy: UrlPolicy) -> None:
    """Whether it is a URL, holds no password, and may be asked for."""
    if any(ord(c) <= 32 or ord(c) == 127 for c in url) or not url.isprintable():
        raise InvalidRequestError("url: must not contain whitespace or control characters")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise InvalidRequestError("url: not a valid URL; check host and port") from None
    if not parts.scheme or "://" not in url:
        raise InvalidRequestError(f"url {redacted(url)}: needs a scheme, such as https://")
    if "@" in parts.netloc:
        raise InvalidRequestError(
            f"url {redacted(url)}: user and password are not allowed in a URL; create a secret, and pass its name"
        )
    check_url(url, policy)
    check_scheme(url, policy)


def check_placed(dest: str, urls: Sequence[str], roots: Sequence[str]) -> None:
    """Whether outputs at `dest` lie below an allowed root, whatever the URLs are called."""
    text = check_dest(dest)
    if not roots:
        raise InvalidRequestError(
            "dest: not allowed by this manager; set `dest_roots` (DRAGONFLY_MANAGER_DEST_ROOTS) to the allowed folders"
        )
    if any(ord(c) < 32 for c in text):
        raise InvalidRequestError("dest: must not contain control characters")
    path = PurePosixPath(text)
    if not any(PurePosixPath(root) in path.parents for root in roots):
        raise InvalidRequestError(f"dest {text!r}: must be inside one of {', '.join(roots)}")
    check_outputs(text, urls)


def _secret(
    database: Database, principal: Principal, body: DistributionCreate | PreheatCreate
) -> Iterator[Failure]:
    if not body.secret:
        return
    if not principal.may(Permission.SECRETS_READ):
        # Whoever may not even see that it is there does not get at what it opens, either.
        yield Failure(
            kind="secret-forbidden",
            message=f"{principal.name} may not use secrets: permission {Permission.SECRETS_READ} is missing",
        )
        return
    with database.read() as session:
        row = session.get(Secret, body.secret)
        granted = row is not None and grants.may_use(session, row.name, principal)
    if row is None:
        yield Failure(kind="unknown-secret", message=f"secret {body.secret!r} not found")
        return
    if not granted:
        yield Failure(
            kind="secret-forbidden",
            message=f"{principal.name} may not use secret {row.name!r}: ask its owner ({row.created_by}) or an admin for access",
        )
        return
    for url in body.urls:
        why = secrets.refused(row, url)
        if why is not None:
            yield Failure(kind=why.kind, message=why.message)
