"""Hosts join a task: what each is told to fetch, and of whom."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import msgspec

from dragonfly_ray import messages as m
from dragonfly_ray.model import Credentials, Host, Task
from dragonfly_ray.scheduling import completion, digest_recovery, drain, granting, origin_admission
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import ClusterState
from dragonfly_ray.scheduling.distribution_state import DistributionState
from dragonfly_ray.scheduling.neighbourhood import neighbours, news_of_joined
from dragonfly_ray.scheduling.task import TaskState, Traffic
from dragonfly_ray.scheduling.traffic_matrix import TrafficMatrix
from dragonfly_ray.scheduling.traffic_meter import TrafficMeter

log = logging.getLogger(__name__)

MANIFEST_INLINE = 64 * 1024
"""A manifest up to this size travels with the delivery; a longer one goes from peer to peer."""

SHARED_OUT = 4 * 1024 * 1024
"""A file up to this size is leased at once, see `_share`."""


def start(cluster: ClusterState, state: DistributionState, now: float) -> list[Action]:
    task = cluster.tasks[state.task_id]
    actions = _expel_again(cluster, state, task, now)
    joining = [cluster.by_node[n] for n in state.open_nodes if cluster.alive_node(n)]
    helpers = [h for h in _helpers(cluster, state) if h not in joining and h not in task.expelled()]
    new = [h for h in (*joining, *helpers) if h not in task.participants]
    known = len(task.participants)
    join(cluster, task, dict.fromkeys(joining, False) | dict.fromkeys(helpers, True), now)
    actions += digest_recovery.ask(cluster, task, now)
    if cluster.draining:
        actions += drain.look(cluster, task, now)
    found = {host: delivery(cluster, state, task, host, now) for host in (*joining, *helpers)}
    left = task.leases.left  # once all of them have theirs
    actions += [Send(host, msgspec.structs.replace(each, left=left)) for host, each in found.items()]
    if known:
        actions += news_of_joined(cluster, task, new)
    for host in joining:
        record = state.nodes[cluster.hosts[host].host.node_id]
        if record.state == "waiting":
            state.move(record.node_id, "running")
        cluster.hosts[host].last_seen = now
    state.version += 1
    return actions


def _expel_again(
    cluster: ClusterState, state: DistributionState, task: TaskState, now: float
) -> list[Action]:
    """Whoever was banned from the task lately gets nothing of it; what is long ago is forgiven at a fresh start."""
    if not task.participants:
        task.pardon(
            h
            for h in task.expelled()
            if h not in cluster.hosts or not cluster.evaluator.bars(cluster.hosts[h], now)
        )
    return [a for host in sorted(task.expelled()) for a in completion.expel(cluster, task, host, now)]


def _helpers(cluster: ClusterState, state: DistributionState) -> list[str]:
    """Hosts that are no targets but must take part: whoever may go to the origin."""
    owner = state.spec.source.node
    if owner:
        return [cluster.by_node[owner]] if cluster.alive_node(owner) else []
    if cluster.seeds_only(state):
        return cluster.seeds()
    return []


def join(cluster: ClusterState, task: TaskState, hosts: Mapping[str, bool], now: float) -> None:
    """Hosts take part; of each, whether it only helps. Whoever holds something already gets neighbours, too."""
    if not task.participants:
        task.flows, task.meter = TrafficMatrix(), TrafficMeter()
    task.meter.distributions.update(task.specs)
    for host, helper in hosts.items():
        cluster.enlist(task, host, helper=helper)
        task.confirmed[host] = now
        task.traffic.setdefault(host, Traffic()).moved = now
    _shun(cluster, task, hosts, now)
    aside = [] if task.closed else [h for h in task.aside if cluster.usable(task, h)]
    task.aside.difference_update(aside)
    task.aside.difference_update(hosts)
    task.graph.join_all([(h, cluster.hosts[h].host.idc) for h in (*aside, *hosts)], now)


def _shun(cluster: ClusterState, task: TaskState, hosts: Iterable[str], now: float) -> None:
    """Those that were banned somewhere recently are no parents, as long as there are others."""
    owners = {s.spec.source.node for s in task.specs.values()}
    barred = [
        h
        for h in (*hosts, *task.aside)
        if cluster.alive(h)
        and cluster.evaluator.bars(cluster.hosts[h], now)
        and cluster.hosts[h].host.node_id not in owners
    ]
    if barred and not task.able.issubset(barred):
        for host in barred:
            log.info(
                "task %.12s: host %s was banned recently, not assigned as a parent",
                task.task.id,
                host,
                extra={"task_id": task.task.id},
            )
            task.shun(host)
            cluster.recount(task, host)


def delivery(
    cluster: ClusterState, state: DistributionState, task: TaskState, host: str, now: float
) -> m.Deliver:
    claimants = origin_admission.claimants(cluster, task, host, state)
    may_claim = claimants > 0
    task.claimants = claimants or task.claimants
    helper = task.participants.get(host, True)
    wait = cluster.budget(task).wait(now)
    lease: list[int] = []
    if may_claim and not wait and not state.small and not task.is_complete(host):
        at_once = cluster.settings.origin.connections
        share = _share(task.task, claimants)
        most, least = max(2 * at_once, share), max(at_once, share)
        lease = origin_admission.grant(cluster, task, host, most, claimants, now, least=least)
    proved = state.proved or host in state.fed
    inline = state.manifest if len(state.manifest) <= MANIFEST_INLINE else b""
    return m.Deliver(
        spec=state.spec,
        task=task.task,
        credentials=state.credentials if may_claim else Credentials(),
        manifest=inline,
        neighbours=neighbours(cluster, task, host),
        grant=granting.grant(cluster, task, host, now),
        banned=tuple(task.expelled()),
        may_claim=may_claim,
        sole=claimants == 1 and len(task.participants) > 2,
        helper=helper,
        lease=tuple(lease),
        content=state.content,
        digests=state.digests,
        beside=state.beside,
        interval=cluster.interval(),
        not_before=wait,
        connections=task.connections.get(host, 0),
        proved=proved,
        importer=task.graph.imports(host),
        left=task.leases.left,
    )


def _share(task: Task, claimants: int) -> int:
    """The pieces of a small file that each claimant is to read, so that nobody has to claim any more; 0: it is no such.
    Whoever reads more slowly than the others gives back what it has not begun. Of a folder it may have begun all:
    pieces of small files are asked for together."""
    return -(-task.pieces // claimants) if task.size <= SHARED_OUT and not task.directory else 0


def take_over(cluster: ClusterState, task: TaskState, now: float) -> list[Action]:
    """The last seed is away, and nobody else may go to the origin: two targets hear that they may now."""
    return [
        Send(host, delivery(cluster, state, task, host, now))
        for state in task.specs.values()
        if cluster.seeds_only(state)
        for host in task.deputies()
    ]


def deliver_late(cluster: ClusterState, state: DistributionState, host: Host, now: float) -> list[Action]:
    record = state.nodes.get(host.node_id)
    task = cluster.tasks[state.task_id]
    if host.id in task.expelled():
        return completion.expel(cluster, task, host.id, now)
    helper = record is None and host.id in task.participants
    if (record is None or record.terminal) and not helper:
        return []
    join(cluster, task, {host.id: helper}, now)
    if record:
        state.move(record.node_id, "running")
        state.version += 1
    return [
        Send(host.id, delivery(cluster, state, task, host.id, now)),
        *news_of_joined(cluster, task, [host.id]),
        *digest_recovery.ask(cluster, task, now),
    ]
