"""What a driver script, a Ray task, an actor or a notebook calls."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from dragonfly_ray import messages as m
from dragonfly_ray.actors.connect import Actors, connect
from dragonfly_ray.actors.handles import (
    CONTROLLER,
    find,
    get,
    peer_name,
    reach,
    scheduler_name,
    stop_all,
)
from dragonfly_ray.actors.nodes import current_node, members, members_of, table
from dragonfly_ray.actors.start import start_controller
from dragonfly_ray.config import Settings
from dragonfly_ray.distribution import Distribution, told_apart
from dragonfly_ray.errors import (
    DeadlineError,
    DragonflyError,
    InvalidRequestError,
    NotRunningError,
)
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.options import (
    DistributeOptions,
    SourceOptions,
    SubmitOptions,
    check_together,
    checked_dest,
    credentials_of,
    source_for,
    takes,
    waiting,
)
from dragonfly_ray.output_names import names_alike
from dragonfly_ray.scheduling.rendezvous import shard_of
from dragonfly_ray.statuses import NodeStatus, decode_nodes
from dragonfly_ray.streaming_file import PieceFile
from dragonfly_ray.submission import Submission
from dragonfly_ray.targets import Member, Selector, select
from dragonfly_ray.umask import current_umask
from dragonfly_ray.urls import is_path, local_url, redacted, scheme
from dragonfly_ray.waiting import follow

if TYPE_CHECKING:
    from dragonfly_ray.serve.launch import Deployed
    from dragonfly_ray.serve.settings import ManagerSettings

CALL_TIMEOUT = 30.0
STATUS_TIMEOUT = 5.0
"""Seconds that peers have to tell of themselves, all together."""
LOAD_TIMEOUT = 600.0


@takes(DistributeOptions)
def distribute(
    url: str | os.PathLike[str] | Sequence[str],
    nodes: Selector = "all",
    **options: Unpack[DistributeOptions],
) -> Distribution:
    """Puts a file or a directory on every chosen node, and waits until all of them have ended.

    Args:
        url: Any fsspec URL, a path of this node, or a list of them (one task each). A directory ends
            with `/` or is one.
        nodes: `"all"`, `"seeds"`, a count, a share (`"10%"`), node ids, IPs or names, a label
            selector (`{"pool": "gpu"}`), or a list of these.
        {options}

    Raises:
        InvalidRequestError: before anything starts.
        DistributionFailedError: some node failed; its `distribution` has every node's outcome.
    """
    wait, rest = waiting(options)
    return follow(lambda: submit(url, nodes, **rest), **wait)


@takes(SubmitOptions)
def submit(
    url: str | os.PathLike[str] | Sequence[str],
    nodes: Selector = "all",
    **options: Unpack[SubmitOptions],
) -> Submission:
    """`distribute` without waiting.

    Args:
        url, nodes: As for `distribute`.
        {options}
    """
    urls = _urls(url)
    target, digest = checked_dest(options["dest"]), options["digest"] or ""
    check_together(urls, target, digest)
    sources = [_source(each, options) for each in urls]
    settings, known = _cluster()
    chosen = select(nodes, known)
    number, run = options["id"] or uuid.uuid4().hex, uuid.uuid4().hex
    umask = _umask(target, chosen)
    specs = [
        m.DistributionSpec(
            id=f"{number}.{position}",
            source=source,
            targets=tuple(member.node_id for member in chosen),
            dest=target,
            digest=digest,
            link=options["link"],
            detached=options["detached"],
            run=run,
            umask=umask,
            beside=beside,
        )
        for position, (source, beside) in enumerate(zip(sources, names_alike(urls), strict=True))
    ]
    submission = Submission(number, specs, credentials_of(options), settings, _names(known))
    submission.start()
    return submission


def attach(id: str) -> Submission:
    """Finds a distribution again, from any process of the cluster.

    Raises `InvalidRequestError` for one that no scheduler knows; ended ones are known for ten minutes.
    """
    settings = _running_settings()
    specs: list[m.DistributionSpec] = []
    for scheduler in _schedulers(settings):
        for spec_id in get(scheduler.find.remote(f"{id}."), CALL_TIMEOUT, "a scheduler"):
            payload = get(scheduler.spec.remote(spec_id), CALL_TIMEOUT, "a scheduler")
            spec = m.decode(payload) if payload else None
            if isinstance(spec, m.DistributionSpec):
                specs.append(spec)
    if not specs:
        raise InvalidRequestError(f"distribution {id!r} not found; finished ones are kept for 10 minutes")
    specs.sort(key=lambda spec: int(spec.id.rpartition(".")[2]))
    submission = Submission(id, specs, Credentials(), settings, _names(members(settings.peer)))
    submission.start()
    return submission


# --- the current node ---------------------------------------------------------------------------


@takes(DistributeOptions)
def fetch(url: str | os.PathLike[str], **options: Unpack[DistributeOptions]) -> Path:
    """Gets `url` onto the node that this runs on; options as for `distribute`.

    The path is read-only, and valid until the content is evicted (`pin` prevents it).
    """
    done = distribute(url, [current_node()], **options)
    return next(iter(done.paths.values()))


@takes(SubmitOptions)
def open(url: str | os.PathLike[str], **options: Unpack[SubmitOptions]) -> io.BufferedReader:
    """A seekable binary file of `url` on this node, readable while its bytes arrive.

    What is read is fetched first. Options as for `submit`; `url` must be a single file.
    """
    submission = submit(url, [current_node()], **options)
    settings = _running_settings()
    peer = reach(peer_name(current_node()), settings.namespace)
    return io.BufferedReader(PieceFile(submission, peer), buffer_size=1 << 20)


@takes(SubmitOptions)
def load(url: str | os.PathLike[str], **options: Unpack[SubmitOptions]) -> memoryview:
    """The content of `url` as a read-only buffer in this node's object store.

    All workers of the node share the one copy, which stays for as long as one of them uses it; and a while longer,
    for the next (`peer.loaded_bytes`, `peer.loaded_ttl`). Options as for `submit`.
    """
    submission = submit(url, [current_node()], **options)
    try:
        submission.result().raise_for_failures()
    finally:
        submission.close()
    settings = _running_settings()
    peer = reach(peer_name(current_node()), settings.namespace)
    (reference,) = get(peer.load.remote(submission.task_ids()[0]), LOAD_TIMEOUT, "this node's peer")
    return memoryview(get(reference, LOAD_TIMEOUT, "this node's object store")).cast("B")


# --- what is where ------------------------------------------------------------------------------


@takes(SourceOptions)
def where(
    url: str | os.PathLike[str], *, partial: bool = True, **identity: Unpack[SourceOptions]
) -> list[str]:
    """The ids of the nodes that hold `url`, those with the most of it first.

    `identity`: whatever else made it a task of its own (`tag`, `application`, `filtered_query_params`, `links`, and of
    `storage_options` and `headers` what chooses the server or the representation: give the same again). With
    `partial=False` only those that hold all of it.
    """
    source = _source(_url(url), identity)
    settings = _running_settings()
    found = get(_scheduler_of(source, settings).where.remote(source.id), CALL_TIMEOUT, "a scheduler")
    ranked = sorted(found.items(), key=lambda item: -item[1])
    return [node for node, share in ranked if partial or share >= 1.0]


@takes(SourceOptions)
def pin(
    url: str | os.PathLike[str],
    nodes: Selector = "all",
    *,
    owner: str = "user",
    ttl: float | None = None,
    **identity: Unpack[SourceOptions],
) -> int:
    """Keeps `url` from being evicted where it is held, for `ttl` seconds or until `unpin`.

    `identity`: as for `where`. Returns the number of nodes.
    """
    expires = None if ttl is None else time.time() + ttl
    held = _held(url, nodes, identity)
    calls = [peer.pin.remote(task, owner, expires) for _, peer, tasks in held for task in tasks]
    get(calls, CALL_TIMEOUT, "a peer")
    return len(held)


@takes(SourceOptions)
def unpin(
    url: str | os.PathLike[str],
    nodes: Selector = "all",
    *,
    owner: str = "user",
    **identity: Unpack[SourceOptions],
) -> int:
    """Undoes `pin` of the same owner. Returns the number of nodes."""
    held = _held(url, nodes, identity)
    calls = [peer.unpin.remote(task, owner) for _, peer, tasks in held for task in tasks]
    get(calls, CALL_TIMEOUT, "a peer")
    return len(held)


@takes(SourceOptions)
def evict(url: str | os.PathLike[str], nodes: Selector = "all", **identity: Unpack[SourceOptions]) -> int:
    """Drops `url` from the stores of the chosen nodes; outputs stay. Returns the bytes freed.

    Raises `InvalidRequestError` where it is pinned or in use.
    """
    freed = 0
    for node, peer, tasks in _held(url, nodes, identity):
        for task in tasks:
            freed += int(get(peer.evict.remote(task), CALL_TIMEOUT, f"the peer of node {node[:12]}"))
    return freed


def _held(
    url: str | os.PathLike[str], nodes: Selector, identity: SourceOptions
) -> list[tuple[str, Any, list[str]]]:
    source = _source(_url(url), identity)
    settings = _running_settings()
    held = get(_scheduler_of(source, settings).held.remote(source.id), CALL_TIMEOUT, "a scheduler")
    # What is there can be dealt with, whether the node takes anything new or not.
    chosen = {member.node_id for member in select(nodes, members(settings.peer))}
    found = []
    for node, tasks in held.items():
        peer = find(peer_name(node), settings.namespace) if node in chosen else None
        if peer is not None:
            found.append((node, peer, tasks))
    return found


# --- the cluster --------------------------------------------------------------------------------


class Started(dict[str, Any]):
    """Node id -> state of its peer. `manager`: its `url`, and the admin's `password` if this start made one up."""

    manager: Deployed | None = None


def up(
    settings: Settings | None = None,
    *,
    wait: bool = True,
    timeout: float = 120.0,
    manager: bool | ManagerSettings = False,
) -> Started:
    """Starts the cluster's actors, or finds them running. `wait`: until every node's peer is ready.

    `manager`: the REST API and console as well, until they are ready (needs the extra `serve`). Settings
    count at the first start only.
    """
    connect()
    started = Started(_peers(settings or Settings(), wait, timeout))
    if manager is not False:
        from dragonfly_ray.serve import launch

        own = None if manager is True else manager
        started.manager = launch.deploy(own, _running_settings(), timeout=timeout)
    return started


def _peers(settings: Settings, wait: bool, timeout: float) -> dict[str, Any]:
    controller = start_controller(settings)
    deadline = time.monotonic() + timeout
    while True:
        peers: dict[str, Any] = get(controller.peers.remote(), CALL_TIMEOUT, CONTROLLER)
        wanted = [member for member in _cluster()[1] if member.alive]
        ready = sum(peers.get(member.node_id, {}).get("state") == "healthy" for member in wanted)
        if not wait or ready >= len(wanted):
            return peers
        if time.monotonic() > deadline:
            late = [w.address for w in wanted if peers.get(w.node_id, {}).get("state") != "healthy"]
            raise NotRunningError(f"no peer ready after {timeout:g} s on {', '.join(late)}; see their logs")
        time.sleep(0.1)


def down() -> bool:
    """Stops the manager and the cluster's actors. What they stored stays. False: nothing was running."""
    connect()
    namespace = Settings().namespace
    managed = False
    if find("SERVE_CONTROLLER_ACTOR", "serve") is not None:
        from dragonfly_ray.serve import launch

        managed = launch.remove(namespace)
    return stop_all(namespace) or managed


def nodes() -> list[Member]:
    """The cluster's nodes, dead ones included."""
    return _cluster()[1]


def cordon(nodes: Selector) -> list[str]:
    """These nodes are chosen for nothing new, unless they are named. Returns their ids."""
    return _mark(nodes, cordoned=True)


def uncordon(nodes: Selector) -> list[str]:
    """Undoes `cordon` and `drain`. Returns the ids of the nodes."""
    return _mark(nodes, cordoned=False, draining=False)


def drain(nodes: Selector, *, wait: bool = True, timeout: float | None = None) -> list[str]:
    """These nodes end what they have begun, and nobody is sent to them for content that others have.

    They are cordoned, too. `wait`: until they have nothing to do any more, or raises `DeadlineError`
    after `timeout` seconds; they go on draining then. Returns their ids.
    """
    chosen = _mark(nodes, cordoned=True, draining=True)
    deadline = None if timeout is None else time.monotonic() + timeout
    while wait:
        states = {s.node_id: s.state for s in _overview(_running_settings()) if s.alive}
        left = [node for node in chosen if states.get(node, "drained") not in ("drained", "missing")]
        if not left:
            break
        if deadline is not None and time.monotonic() > deadline:
            raise DeadlineError(f"{len(left)} nodes still draining after {timeout:g} s; draining continues")
        time.sleep(0.2)
    return chosen


def rotate_keys() -> bool:
    """Another key signs grants as soon as every peer accepts it; those signed with the one before hold until they end.

    False: a rotation is under way already. Raises `NotRunningError`.
    """
    settings = _running_settings()
    controller = reach(CONTROLLER, settings.namespace)
    begun: bool = get(controller.rotate_signing_key.remote(), CALL_TIMEOUT, CONTROLLER)
    return begun


def _mark(nodes: Selector, *, cordoned: bool, draining: bool | None = None) -> list[str]:
    settings, known = _cluster()
    # Those that bear a mark are meant as well: nobody could take it away otherwise.
    chosen = [member.node_id for member in select(nodes, [replace(m, cordoned=False) for m in known])]
    controller = reach(CONTROLLER, settings.namespace)
    calls = [controller.mark.remote(node, cordoned, draining) for node in chosen]
    get(calls, CALL_TIMEOUT, CONTROLLER)
    return chosen


def status() -> dict[str, Any]:
    """Hosts, tasks, distributions and rates: plain values."""
    settings = _running_settings()
    controller = reach(CONTROLLER, settings.namespace)
    known = [node for node in _overview(settings) if node.alive]
    calls = {node.node_id: (peer_name(node.node_id), "status") for node in known if node.state != "missing"}
    failed: dict[str, DragonflyError] = {}
    found = Actors(settings.namespace).gather(calls, STATUS_TIMEOUT, failed.__setitem__)
    hosts = []
    for node in known:
        row: dict[str, Any] = {
            "node_id": node.node_id,
            "name": node.name,
            "address": node.address,
            "seed": node.seed,
            "alive": node.node_id in found,
            "state": node.state,
            "cordoned": node.cordoned,
            **found.get(node.node_id, {}),
        }
        if node.node_id in failed:
            row["error"] = str(failed[node.node_id])
        hosts.append(row)
    views = [get(s.status.remote(), CALL_TIMEOUT, "a scheduler") for s in _schedulers(settings)]
    return {
        "namespace": settings.namespace,
        "pids": {
            CONTROLLER: get(controller.ping.remote(), CALL_TIMEOUT, CONTROLLER),
            **{scheduler_name(view["index"]): view["pid"] for view in views},
        },
        "hosts": hosts,
        "tasks": [task for view in views for task in view["tasks"]],
        "distributions": [spec for view in views for spec in view["distributions"]],
        "rates": {
            "receive": sum(host.get("receive_rate", 0.0) for host in hosts),
            "send": sum(host.get("send_rate", 0.0) for host in hosts),
        },
    }


# --- odds ---------------------------------------------------------------------------------------


def _cluster() -> tuple[Settings, list[Member]]:
    """Settings and nodes of the running cluster; it is started with our own settings if it is missing."""
    connect()
    own = Settings()
    controller = find(CONTROLLER, own.namespace) or start_controller(own)
    current = controller.current.remote()
    rows = table()  # meanwhile
    settings, cordoned = get(current, CALL_TIMEOUT, CONTROLLER)
    return settings, members_of(rows, settings.peer, cordoned)


def _overview(settings: Settings) -> tuple[NodeStatus, ...]:
    controller = reach(CONTROLLER, settings.namespace)
    return decode_nodes(get(controller.overview.remote(), CALL_TIMEOUT, CONTROLLER))


def _running_settings() -> Settings:
    connect()
    controller = reach(CONTROLLER, Settings().namespace)
    found: Settings = get(controller.settings.remote(), CALL_TIMEOUT, CONTROLLER)
    return found


def _schedulers(settings: Settings) -> list[Any]:
    return [reach(scheduler_name(i), settings.namespace) for i in range(settings.scheduler.shards)]


def _scheduler_of(source: Source, settings: Settings) -> Any:
    return reach(scheduler_name(shard_of(source.id, settings.scheduler.shards)), settings.namespace)


def _names(known: Sequence[Member]) -> dict[str, str]:
    return told_apart({member.node_id: member.name or member.address for member in known})


def _umask(dest: str, chosen: Sequence[Member]) -> int | None:
    """The caller's own, where an output is for nobody but its node: as if it wrote there itself."""
    here = bool(dest) and [member.node_id for member in chosen] == [current_node()]
    return current_umask() if here else None


def _urls(url: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    many = [url] if isinstance(url, (str, os.PathLike)) else list(url)
    return [_url(each) for each in many]


def _url(url: str | os.PathLike[str]) -> str:
    """With a protocol; paths of this machine become `file://`."""
    text = os.fspath(url)
    if not text or "\0" in text:
        raise InvalidRequestError("url: must be a URL or a path")
    if scheme(text) == "file":
        path = text.removeprefix("file://")
        slash = "/" if path.endswith("/") and len(path) > 1 else ""
        return local_url(f"{os.path.abspath(path)}{slash}")
    if text.partition("://")[2].strip("/") == "":
        raise InvalidRequestError(f"url {redacted(text)!r}: has no host or path after the scheme")
    return text


def _source(url: str, options: SourceOptions) -> Source:
    local = is_path(url) and not options["shared"]
    if local:
        connect()
    return source_for(url, options, current_node() if local else "")
