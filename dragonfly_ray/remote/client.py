"""What a service, a notebook or the command line calls where a manager stands between it and the cluster."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, Unpack
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from dragonfly_ray.distribution import Distribution
from dragonfly_ray.errors import DeadlineError, DragonflyError, InvalidRequestError
from dragonfly_ray.options import (
    JobOptions,
    PreheatOptions,
    RemoteDistributeOptions,
    RemoteSourceOptions,
    checked_dest,
    options_of,
    source_for,
    takes,
    takes_many,
    texts,
    waiting,
)
from dragonfly_ray.remote.credentials import CA_VARIABLE, find_token
from dragonfly_ray.remote.http import TIMEOUT, Http
from dragonfly_ray.remote.submission import RemoteSubmission, path_of
from dragonfly_ray.targets import Member, Selector, select
from dragonfly_ray.urls import is_path, redacted, scheme
from dragonfly_ray.waiting import follow

DRAIN_INTERVAL = 1.0
JOBS = ("distributions", "preheats")


def connect(
    url: str,
    token: str | None = None,
    *,
    ca: str | os.PathLike[str] | None = None,
    timeout: float = TIMEOUT,
    transport: httpx.BaseTransport | None = None,
) -> Client:
    """A client of the manager at `url`, checked by asking who the token's owner is.

    Args:
        token: Else `DRAGONFLY_TOKEN`, else the file `~/.config/dragonfly/token`, which nobody else may read.
        ca: A file with the authority that signed the manager's certificate, where the system does not
            know it; else `DRAGONFLY_CA`.
        timeout: Seconds for one answer.
    """
    authority = os.fspath(ca) if ca else os.environ.get(CA_VARIABLE)
    client = Client(Http(url, find_token(token), ca=authority, timeout=timeout, transport=transport))
    try:
        client.me = client.http.look("/session")
    except BaseException:
        client.close()
        raise
    return client


class Client:
    """A cluster, through its manager. The calls are those of `dragonfly_ray` itself, and so are their values.

    What differs: URLs are fetched by the cluster, so paths of this machine are refused; credentials are named
    (`secret`), never sent; a distribution goes on when its submitter is gone.
    """

    me: Mapping[str, Any]
    """Who this is, and what they may do."""

    def __init__(self, http: Http) -> None:
        self.http = http
        self.me = {}

    def __repr__(self) -> str:
        return f"Client({self.http.url}, {self.me.get('name', '?')})"

    def close(self) -> None:
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- jobs -------------------------------------------------------------------------------

    @takes(JobOptions)
    def submit(
        self,
        url: str | os.PathLike[str] | Sequence[str],
        nodes: Selector = "all",
        **options: Unpack[JobOptions],
    ) -> RemoteSubmission:
        """`distribute` without waiting.

        Args:
            url, nodes: As for `dragonfly_ray.distribute`.
            {options}
        """
        return self._start("distributions", url, nodes, options)

    @takes(RemoteDistributeOptions)
    def distribute(
        self,
        url: str | os.PathLike[str] | Sequence[str],
        nodes: Selector = "all",
        **options: Unpack[RemoteDistributeOptions],
    ) -> Distribution:
        """Puts a file or a directory on every chosen node, and waits until all of them have ended.

        Whatever ends the wait (a timeout, Ctrl-C) cancels it.

        Args:
            url, nodes: As for `dragonfly_ray.distribute`.
            {options}
        """
        wait, rest = waiting(options)
        return follow(lambda: self.submit(url, nodes, **rest), **wait)

    @takes(PreheatOptions)
    def preheat(
        self,
        url: str | os.PathLike[str] | Sequence[str],
        nodes: Selector = "seeds",
        **options: Unpack[PreheatOptions],
    ) -> RemoteSubmission:
        """Warms the stores of nodes, without an output; does not wait.

        Args:
            url, nodes: As for `dragonfly_ray.distribute`.
            {options}
        """
        return self._start("preheats", url, nodes, options)

    def attach(self, id: str) -> RemoteSubmission:
        """Finds a distribution or a preheat again. Raises `InvalidRequestError` for one that is not known."""
        return RemoteSubmission(self.http, self._job(id))

    def cancel(self, id: str) -> None:
        """Stops it everywhere; outputs that are there already stay."""
        self.http.post_again(f"{path_of(self._job(id))}/cancel")

    def retry(self, id: str, nodes: Sequence[str] = ()) -> RemoteSubmission:
        """Again on the nodes (ids) that failed, or on these of them: a job of its own."""
        job = self.http.post_again(
            f"{path_of(self._job(id))}/retry", {"node_ids": list(nodes)}, key=uuid.uuid4().hex
        )
        return RemoteSubmission(self.http, job)

    def jobs(
        self, *, kind: str | None = None, state: str | None = None, most: int | None = 50
    ) -> list[dict[str, Any]]:
        """The latest first, distributions and preheats."""
        found = [
            job
            for resource in JOBS
            if kind is None or resource == f"{kind}s"
            for job in self.http.pages(f"/{resource}", most, state=state)
        ]
        return sorted(found, key=lambda job: str(job["created_at"]), reverse=True)[:most]

    def _start(
        self,
        resource: str,
        url: str | os.PathLike[str] | Sequence[str],
        nodes: Selector,
        options: PreheatOptions,
    ) -> RemoteSubmission:
        body, key = _request(url, nodes, options), options["id"] or uuid.uuid4().hex
        try:
            return RemoteSubmission(self.http, self.http.post_again(f"/{resource}", body, key=key))
        except KeyboardInterrupt:
            # The manager may have started it, and the answer been on its way: the same key names the same job.
            # Tried once: whoever interrupts does not wait for a manager that is away.
            with contextlib.suppress(DragonflyError):
                job = self.http.post(f"/{resource}", body, key=key)
                self.http.post(f"{path_of(job)}/cancel")
            raise

    def _job(self, id: str) -> dict[str, Any]:
        for resource in JOBS:
            try:
                found: dict[str, Any] = self.http.get(f"/{resource}/{quote(id, safe='')}")
            except InvalidRequestError as error:
                if error.details.get("kind") != "not-found":
                    raise
            else:
                return found
        raise InvalidRequestError(f"no distribution or preheat {id!r} at the manager")

    # --- nodes ------------------------------------------------------------------------------

    def nodes(self) -> list[Member]:
        """The cluster's nodes, dead ones included."""
        return [_member(node) for node in self.http.pages("/nodes")]

    def cordon(self, nodes: Selector, *, note: str = "") -> list[str]:
        """These nodes are chosen for nothing new, unless they are named. Returns their ids."""
        return self._mark(nodes, "cordon", {"note": note})

    def uncordon(self, nodes: Selector) -> list[str]:
        """Undoes `cordon` and `drain`. Returns the ids of the nodes."""
        self._mark(nodes, "undrain")
        return self._mark(nodes, "uncordon")

    def drain(
        self, nodes: Selector, *, note: str = "", wait: bool = True, timeout: float | None = None
    ) -> list[str]:
        """These nodes end what they have begun, and nobody is sent to them for content that others have.

        They are cordoned, too. `wait`: until they have nothing to do any more, or raises `DeadlineError`
        after `timeout` seconds; they go on draining then. Returns their ids.
        """
        chosen = self._mark(nodes, "cordon", {"note": note})
        self._mark(chosen, "drain", {"note": note})
        deadline = None if timeout is None else time.monotonic() + timeout
        while wait:
            states = {n["node_id"]: n["state"] for n in self.http.pages("/nodes") if n["alive"]}
            left = [node for node in chosen if states.get(node, "drained") not in ("drained", "missing")]
            if not left:
                break
            if deadline is not None and time.monotonic() > deadline:
                raise DeadlineError(
                    f"{len(left)} nodes still draining after {timeout:g} s; draining continues"
                )
            time.sleep(DRAIN_INTERVAL)
        return chosen

    def _mark(self, nodes: Selector, what: str, body: object = None) -> list[str]:
        chosen = self._ids(nodes)
        for node in chosen:
            self.http.post_again(f"/nodes/{node}/{what}", body)
        return chosen

    def _ids(self, nodes: Selector) -> list[str]:
        # Cordoned ones are meant as well: nobody could take their marks away otherwise.
        return [
            member.node_id for member in select(nodes, [replace(m, cordoned=False) for m in self.nodes()])
        ]

    def status(self) -> dict[str, Any]:
        """Hosts, tasks, distributions under way and rates: plain values."""
        hosts = [_host(node) for node in self.http.pages("/nodes")]
        return {
            "manager": self.http.url,
            "hosts": hosts,
            "tasks": list(self.http.pages("/tasks")),
            "distributions": [
                _running(job) for r in JOBS for state in ("queued", "running")
                for job in self.http.pages(f"/{r}", state=state)
            ],
            "rates": {
                "receive": sum(host["receive_rate"] for host in hosts),
                "send": sum(host["send_rate"] for host in hosts),
            },
        }  # fmt: skip

    # --- what is where ------------------------------------------------------------------------

    def cached(self) -> list[dict[str, Any]]:
        """What is cached where: a row for each task on each node."""
        addresses = {m.node_id: m.address for m in self.nodes()}
        return [
            {"host": addresses.get(holder["node_id"], holder["node"]), "node_id": holder["node_id"],
             "url": task["url"], "size": task["size"], "share": holder["share"],
             "complete": holder["share"] >= 1.0, "task_id": task["task_id"]}
            for task in self._details(self.http.pages("/tasks"))
            for holder in task["holders"]
        ]  # fmt: skip

    @takes(RemoteSourceOptions)
    def where(self, url: str, *, partial: bool = True, **identity: Unpack[RemoteSourceOptions]) -> list[str]:
        """The ids of the nodes that hold `url`, those with the most of it first; as `dragonfly_ray.where`.

        `identity`: what it was fetched with.
        """
        shares: dict[str, float] = {}
        for task in self._details(self._tasks(url, identity)):
            for holder in task["holders"]:
                shares[holder["node_id"]] = max(shares.get(holder["node_id"], 0.0), holder["share"])
        ranked = sorted(shares.items(), key=lambda item: -item[1])
        return [node for node, share in ranked if partial or share >= 1.0]

    @takes(RemoteSourceOptions)
    def pin(
        self,
        url: str,
        nodes: Selector = "all",
        *,
        ttl: float | None = None,
        **identity: Unpack[RemoteSourceOptions],
    ) -> int:
        """Keeps `url` from being evicted where it is held. Returns the number of nodes."""
        body = {"node_ids": self._chosen(nodes), "ttl": ttl}
        tasks = list(self._tasks(url, identity))
        return sum(self.http.post_again(f"/tasks/{t['task_id']}/pin", body)["nodes"] for t in tasks)

    @takes(RemoteSourceOptions)
    def unpin(self, url: str, **identity: Unpack[RemoteSourceOptions]) -> None:
        """Undoes `pin`, everywhere."""
        for task in list(self._tasks(url, identity)):
            self.http.delete(f"/tasks/{task['task_id']}/pin")

    @takes(RemoteSourceOptions)
    def evict(self, url: str, nodes: Selector = "all", **identity: Unpack[RemoteSourceOptions]) -> int:
        """Drops `url` from the stores of the chosen nodes; outputs stay. Returns the bytes freed."""
        body = {"node_ids": self._chosen(nodes)}
        tasks = list(self._tasks(url, identity))
        return sum(self.http.post_again(f"/tasks/{t['task_id']}/evict", body)["bytes"] for t in tasks)

    def _chosen(self, nodes: Selector) -> list[str]:
        return [] if nodes == "all" else self._ids(nodes)

    def _tasks(self, url: str, identity: RemoteSourceOptions) -> Iterator[dict[str, Any]]:
        """Of all its versions."""
        found: Any
        source, secret = source_for(_remote_url(url), identity, ""), identity["secret"]
        if secret:
            path = f"/secrets/{quote(secret, safe='')}/server"
            server = self.http.get(path, scheme=scheme(source.url))["server"]
            source = msgspec.structs.replace(source, server=server)
        # By its host alone: the same task may be spelled otherwise there.
        found = self.http.pages("/tasks", url=urlsplit(source.url).hostname)
        return (task for task in found if task["source_id"] == source.id)

    def _details(self, tasks: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        return (self.http.get(f"/tasks/{task['task_id']}") for task in list(tasks))


# --- requests and rows ------------------------------------------------------------------------------


def _request(
    url: str | os.PathLike[str] | Sequence[str], nodes: Selector, options: PreheatOptions | JobOptions
) -> dict[str, Any]:
    """What was left out stays out: a manager of the version before need not know of it."""
    urls = [url] if isinstance(url, (str, os.PathLike)) else list(url)
    given: dict[str, Any] = {
        name: value for name, value in options.items() if value != options_of(JobOptions)[name][1].default
    }
    given.pop("id", None)  # the key
    return {"urls": [_remote_url(each) for each in urls], "nodes": nodes} | {
        name: checked_dest(value) if name == "dest" else list(texts(value)) if takes_many(name) else value
        for name, value in given.items()
    }


def _remote_url(url: str | os.PathLike[str]) -> str:
    text = os.fspath(url)
    if is_path(text):
        raise InvalidRequestError(
            f"{redacted(text)!r} is a local path: a manager accepts only URLs that every node can reach "
            "(https://, s3://, …)"
        )
    return text


def _member(node: Mapping[str, Any]) -> Member:
    return Member(
        node_id=node["node_id"],
        address=node["address"],
        name=node["name"],
        labels=node["labels"],
        alive=node["alive"],
        seed=node["role"] == "seed",
        cordoned=node["cordoned"],
    )


def _host(node: Mapping[str, Any]) -> dict[str, Any]:
    """A row as `dragonfly_ray.status` has it."""
    return dict(node) | {
        "seed": node["role"] == "seed",
        "tasks": node["active_tasks"],
        "used": node["store_used"],
        "quota": node["store_quota"],
    }


def _running(job: Mapping[str, Any]) -> dict[str, Any]:
    told = job["progress"]
    return {
        "id": job["id"],
        "url": ", ".join(job["urls"]),
        "phase": job["state"],
        "nodes_done": told["nodes_done"],
        "nodes_total": told["nodes_total"],
    }
