"""A peer makes itself known: it is new, it is back, or the scheduler has forgotten it."""

from __future__ import annotations

from dragonfly_ray import bitset
from dragonfly_ray import messages as m
from dragonfly_ray.model import Host
from dragonfly_ray.scheduling import (
    access_checks,
    digest_recovery,
    failure_detector,
    neighbourhood,
    resolution,
    task_join,
    trust,
)
from dragonfly_ray.scheduling.actions import Action, Send
from dragonfly_ray.scheduling.cluster import Announcement, ClusterState, HostState
from dragonfly_ray.scheduling.distribution_state import DistributionState


def announce(cluster: ClusterState, message: m.Announce, now: float) -> list[Action]:
    """A page of what a peer has; the first one lets it in."""
    actions: list[Action] = []
    host = message.host
    if not message.page:
        fresh, actions = _enter(cluster, message, now)
    elif not follows(cluster, message) or _again(cluster, message):
        return []
    else:
        fresh = cluster.announcing[host.id].fresh
    for held in message.held:
        actions += _held(cluster, held, host, now, fresh=fresh)
    announced = cluster.announcing.get(host.id)
    if announced and announced.sequence == message.sequence:
        announced.pages = max(announced.pages, message.page + 1)
        announced.told.update(held.task.id for held in message.held)
        if message.last:
            del cluster.announcing[host.id]
            cluster.hosts[host.id].heard = message.sequence
            actions += _missing(cluster, host.id, announced, now)
    if not message.page:
        actions += _deliveries(cluster, message, now, fresh=fresh)
    return actions


def follows(cluster: ClusterState, message: m.Announce) -> bool:
    """Whether the pages before this one have come."""
    if not message.page or _again(cluster, message):
        return True
    known, host = cluster.announcing.get(message.host.id), cluster.hosts.get(message.host.id)
    return (
        known is not None
        and host is not None
        and host.host.incarnation == message.host.incarnation
        and known.sequence == message.sequence
        and message.page <= known.pages
    )


def _again(cluster: ClusterState, message: m.Announce) -> bool:
    """Whether all of its announcement has been heard: the answer to a page was lost, and it came again."""
    host = cluster.hosts.get(message.host.id)
    if host is None or not host.alive or host.host.incarnation != message.host.incarnation:
        return False
    return bool(message.sequence) and host.heard == message.sequence


def rival(cluster: ClusterState, host: Host) -> Host | None:
    """Another node's peer that is known by this host id, and may be alive: then one of the two must take another."""
    known = cluster.hosts.get(host.id)
    if known is None or not known.alive or known.host.incarnation == host.incarnation:
        return None
    return known.host if known.host.node_id != host.node_id else None


def _enter(cluster: ClusterState, message: m.Announce, now: float) -> tuple[bool, list[Action]]:
    """Whether the host is new here, or was given up, or has restarted."""
    host = message.host
    old = cluster.hosts.get(host.id)
    actions: list[Action] = []
    restarted = old is not None and old.host.incarnation != host.incarnation
    previous = cluster.by_node.get(host.node_id)
    if previous and previous != host.id:
        actions += failure_detector.forget(cluster, previous, now)
    if restarted:
        actions += failure_detector.forget(cluster, host.id, now, leave=False)
    if old and old.host.node_id != host.node_id:
        # The store has moved to a peer on another node; what is delivered there is not here.
        if cluster.by_node.get(old.host.node_id) == host.id:
            del cluster.by_node[old.host.node_id]
        for task in cluster.tasks.values():
            cluster.discharge(task, [host.id])
    fresh = old is None or restarted or not old.alive
    blame, blamed = (old.blame, old.blamed) if old else (0.0, 0.0)
    heard = old.heard if old and not fresh and not message.sequence else ""
    cluster.hosts[host.id] = HostState(host, blame=blame, blamed=blamed, last_seen=now, heard=heard)
    cluster.by_node[host.node_id] = host.id
    if message.sequence:
        earlier = cluster.announcing.get(host.id)
        cluster.announcing[host.id] = Announcement(message.sequence, fresh or bool(earlier and earlier.fresh))
    if restarted:
        for task in cluster.tasks.values():
            task.granted.pop(host.id, None)  # it has another key
        for state in list(cluster.specs.values()):
            if state.phase == "resolving" and state.resolver == host.id:
                actions += resolution.resolve(cluster, state, now)
    return fresh, actions


def _held(cluster: ClusterState, held: m.Held, host: Host, now: float, *, fresh: bool) -> list[Action]:
    task = cluster.task(held.task, "")
    bits = task.everything if held.root else bitset.from_bytes(held.have, held.task.pieces)
    gone = task.holders.get(host.id, 0) & ~bits
    if gone:
        task.drop(host.id, gone)
    task.hold(host.id, bits, vouched=True)
    task.manifest_holders.add(host.id)
    if held.root:
        digest_recovery.claim(task, host.id, held.root)
    actions: list[Action] = []
    if held.digests:
        actions += trust.learnt(cluster, task, *task.learn_all(host.id, held.digests, bits), now)
    actions += digest_recovery.ask(cluster, task, now, among=[host.id])
    if fresh and task.participants and host.id not in task.participants:
        actions += access_checks.found_held(cluster, task, host.id, now)
        if not task.closed:
            # It may be the only one that has it.
            task.aside.discard(host.id)
            task.graph.join(host.id, host.idc, now)
            actions += neighbourhood.news_of_joined(cluster, task, [host.id])
    return actions


def _missing(cluster: ClusterState, host: str, announced: Announcement, now: float) -> list[Action]:
    """All pages are here: what was on none of them, the host has no more."""
    actions: list[Action] = []
    for task in cluster.tasks.values():
        if host in task.holders and task.task.id not in announced.told and host not in task.participants:
            actions += failure_detector.evicted(cluster, host, task.task.id, now)
    return actions


def _deliveries(cluster: ClusterState, message: m.Announce, now: float, *, fresh: bool) -> list[Action]:
    """What the host is at, and what it should be at."""
    host = message.host
    actions: list[Action] = []
    for delivery in message.deliveries:
        if cancelled := cluster.cancel_of(delivery.spec):
            actions.append(
                Send(
                    host.id, m.Cancel(delivery.spec.id, cancelled.kind, cancelled.message, delivery.spec.run)
                )
            )
        else:
            actions += _adopt(cluster, delivery, host, now)
    for task in cluster.tasks.values():
        if host.id in task.participants:
            cluster.recount(task, host.id)
            if fresh:
                actions += access_checks.found_held(cluster, task, host.id, now)
                task.aside.discard(host.id)
                task.graph.join(host.id, host.idc, now)
                actions += neighbourhood.news_of_joined(cluster, task, [host.id])
    in_hand = {d.spec.id for d in message.deliveries}
    for state in list(cluster.specs.values()):
        if resolution.due(state, now):
            actions += resolution.resolve(cluster, state, now)
        elif state.phase == "running" and fresh and state.spec.id not in in_hand:
            actions += task_join.deliver_late(cluster, state, host, now)
    return actions


def _adopt(cluster: ClusterState, delivery: m.Deliver, host: Host, now: float) -> list[Action]:
    """A delivery that this scheduler does not know: it was another's, before a restart."""
    task = cluster.task(delivery.task, delivery.spec.source.url)
    state = cluster.specs.get(delivery.spec.id)
    new = state is None
    if state is None:
        state = cluster.specs[delivery.spec.id] = DistributionState.new(
            delivery.spec, delivery.credentials, now
        )
        # Whoever may not go to the origin was not told with what the others do.
        state.fingerprint = f"of {delivery.spec.id}"
        if delivery.may_claim:
            state.fingerprint = cluster.access.fingerprint(delivery.spec, delivery.credentials)
    if state.phase == "ended":
        return [Send(host.id, m.Cancel(delivery.spec.id, "done", "", delivery.spec.run))]
    if task.task.id in state.superseded:
        return []  # that it shall leave this is on its way, and must not come after what it gets instead
    state.runs.add(delivery.spec.run)
    if state.phase == "resolving":
        state.pending, state.proved = "", delivery.proved
        cluster.running(state, task)
    state.adopted = state.adopted or new or host.id not in task.participants
    state.fed.add(host.id)
    if not state.credentials.storage_options and not state.credentials.headers:
        state.credentials = delivery.credentials
    task_join.join(cluster, task, {host.id: delivery.helper}, now)
    record = state.nodes.get(host.node_id)
    if record and record.state == "waiting":
        state.move(record.node_id, "running")
    actions: list[Action] = []
    if new and state.phase == "running":
        # Who made itself known before, without it: it has lost it, as this scheduler's predecessor has.
        for node in list(state.open_nodes):
            known = cluster.by_node.get(node)
            if known and known != host.id and cluster.alive(known):
                actions += task_join.deliver_late(cluster, state, cluster.hosts[known].host, now)
    near = neighbourhood.neighbours(cluster, task, host.id)
    if near:
        actions.append(Send(host.id, m.TaskUpdate(task.task.id, joined=near)))
    return actions + digest_recovery.ask(cluster, task, now)
