"""A whole swarm in one process: real stores, sockets and peers, and the scheduler's core without Ray."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dragonfly_ray import messages as m
from dragonfly_ray.config import Settings
from dragonfly_ray.grants import GrantIssuer, GrantVerifier, SigningKey
from dragonfly_ray.model import Credentials, Host, Identity, Task
from dragonfly_ray.peer.node import PeerNode
from dragonfly_ray.peer.scheduler_links import SchedulerLink
from dragonfly_ray.scheduling.dispatch import dispatch
from dragonfly_ray.scheduling.outbox import Outbox
from dragonfly_ray.scheduling.scheduler import Action, Ask, Compare, Probe, SchedulerCore, Send
from dragonfly_ray.source_identity import source_of
from dragonfly_ray.storage.task_store import TaskStore
from dragonfly_ray.transport.negotiation import CURRENT, Capabilities
from dragonfly_ray.transport.streams import Network
from dragonfly_ray.transport.tcp import TCP

RECORD_WAIT = 0.25


class LocalScheduler:
    """`SchedulerCore` behind a lock; its actions are carried out by threads, in order for each host."""

    def __init__(self, settings: Settings, issuer: GrantIssuer) -> None:
        ttl = settings.scheduler.grant_ttl
        self.core = SchedulerCore(settings, lambda task, host: self._sign(issuer, task, host, ttl))
        self.peers: dict[str, PeerNode] = {}
        self.verdicts: dict[str, str] = {}
        """What a probe finds out of a host whose peer is not there; else it is `gone`."""
        self.changed = threading.Condition()
        self.outbox = Outbox()
        self.loses: Callable[[str, m.Message], bool] = lambda host, message: False
        """Whether a message for a host is lost on its way: asked before it is handled, and of its acknowledgement."""
        self.heard: Counter[str] = Counter()
        """How many messages of each kind came from peers."""
        self.asked: list[Ask] = []
        """What peers were asked."""
        self._stopped = False
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    @staticmethod
    def _sign(issuer: GrantIssuer, task: Task, host: Host, ttl: float) -> bytes:
        return issuer.issue(task.id, host.id, host.key, task.tenant, ttl)

    def call(self, message: m.Message) -> m.Message | None:
        message = m.decode(m.encode(message))
        if isinstance(message, m.Stat):
            return self._look(message)
        with self.changed:
            self.heard[type(message).__name__] += 1
            if isinstance(message, m.Announce) and (rival := self.core.rival(message)):
                return m.Announced(taken=rival.name)
            answer, actions = dispatch(self.core, message, time.monotonic())
            self.act(actions)
            if isinstance(message, m.Verify) and isinstance(answer, m.Verified):
                return self._verified(message, answer)
        return answer

    def _verified(self, message: m.Verify, answer: m.Verified) -> m.Verified:
        """As the actor: what others fill is waited for."""
        until = time.monotonic() + RECORD_WAIT
        while self.core.waits_for_others(message, answer) and time.monotonic() < until:
            self.changed.wait(until - time.monotonic())
            answer = msgspec.structs.replace(self.core.verify(message), reply=answer.reply)
        return answer

    def _look(self, message: m.Stat) -> m.Message:
        with self.changed:
            assert self.core.may_look(message)
            peer = self.peers.get(message.host)
        if peer is None:
            return m.StatReply(kind="cluster", message="gone")
        return m.decode(m.encode(peer.ask(message)))

    def act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(host, message):
                    if not self.outbox.push(host, self.core.hosts[host].host.incarnation, message):
                        self.act(self.core.deliver_again(host, time.monotonic()))
                    self._pump(host)
                case Compare(host):
                    peer = self.peers.get(host)
                    if peer and not self.outbox.pending(host):
                        self.act(self.core.compare(peer.carrying(), time.monotonic()))
                case Ask():
                    threading.Thread(target=self._ask, args=(action,), daemon=True).start()
                case Probe(host):
                    verdict = "alive" if host in self.peers else self.verdicts.get(host, "gone")
                    self.act(self.core.probed(host, verdict, time.monotonic()))  # type: ignore[arg-type]
        self.changed.notify_all()

    def _pump(self, host: str) -> None:
        """Until the queue is empty or something is lost; the next tick goes on then."""
        while queued := self.outbox.head(host):
            peer = self.peers.get(host)
            if peer is None:
                self.outbox.drop(host)
                return
            if self.loses(host, queued.message):
                return
            peer.take("scheduler", queued.number, m.decode(m.encode(queued.message)))
            if self.loses(host, queued.message):
                return
            self.outbox.acknowledged(host, queued.number)

    def _ask(self, ask: Ask) -> None:
        message = m.decode(m.encode(ask.message))
        peer = self.peers.get(ask.host)
        with self.changed:
            self.asked.append(ask)
            if peer is None:
                self.act(self.core.unanswered(ask, time.monotonic()))
                return
        answer = peer.ask(message)
        with self.changed:
            self.act(self.core.answered(ask, m.decode(m.encode(answer)), time.monotonic()))

    def _tick(self) -> None:
        while not self._stopped:
            time.sleep(0.25)
            with self.changed:
                self.act(self.core.tick(time.monotonic()))
                for host in list(self.peers):
                    self._pump(host)
                for state in self.core.specs.values():
                    state.heartbeat = time.monotonic()

    def stop(self) -> None:
        self._stopped = True
        self._ticker.join()


class _Links:
    def __init__(self, scheduler: LocalScheduler) -> None:
        self._scheduler = scheduler

    def of(self, source_id: str) -> SchedulerLink:
        return self._scheduler

    def every(self) -> Sequence[SchedulerLink]:
        return [self._scheduler]


class Swarm:
    """`count` peers on loopback, each with a store of its own below `root`."""

    def __init__(
        self,
        root: Path,
        count: int,
        *,
        seeds: int = 0,
        settings: Settings | None = None,
        audit: float = 0.0,
        network: Network = TCP,
        capabilities: Callable[[int], Capabilities] = lambda number: CURRENT,
    ) -> None:
        """`audit`: share of the pieces that are read twice; each byte leaves the origin once by default."""
        self.root = root
        self._network = network
        self._capabilities = capabilities
        given = settings or Settings()
        origins = given.origin.model_copy(update={"audit": audit})
        self.settings = given.model_copy(update={"origin": origins})
        key = SigningKey.generate()
        self.keys = [key.public_bytes()]
        """That grants are verified with."""
        self._verifier = GrantVerifier(self.keys)
        self.scheduler = LocalScheduler(self.settings, GrantIssuer(key))
        self.peers: dict[str, PeerNode] = {}
        for number in range(count):
            self.start(f"n{number}", seed=number < seeds)

    def start(self, node: str, *, seed: bool = False, zone: str = "", location: str = "") -> PeerNode:
        """A peer; with the store of an earlier one of that name."""
        storage = self.settings.storage.model_copy(update={"root": self.root / node})
        settings = self.settings.model_copy(update={"storage": storage})
        peer = PeerNode(
            Identity(node, "127.0.0.1", node, seed, zone, location), settings, self._verifier,
            _Links(self.scheduler), network=self._network,
            capabilities=self._capabilities(len(self.peers)),
        )  # fmt: skip
        self.peers[node] = self.scheduler.peers[peer.host.id] = peer
        peer.announce()
        return peer

    def submit(
        self, url: str, spec_id: str = "s.0", nodes: Iterable[str] | None = None, **options: Any
    ) -> None:
        credentials = options.pop("credentials", Credentials())
        identity = {name: options.pop(name) for name in ("links", "include", "exclude") if name in options}
        source = source_of(url, credentials, node=options.pop("node", ""), **identity)
        spec = m.DistributionSpec(spec_id, source, tuple(nodes or self.peers), **options)
        with self.scheduler.changed:
            self.scheduler.act(self.scheduler.core.submit(spec, credentials, time.monotonic()))

    def wait(self, spec_id: str = "s.0", timeout: float = 200.0) -> dict[str, Any]:
        """The view of the spec once it has ended."""
        deadline = time.monotonic() + timeout
        with self.scheduler.changed:
            while True:
                view = self.scheduler.core.view(spec_id)
                if view and view["phase"] == "ended":
                    return view
                assert time.monotonic() < deadline, view
                self.scheduler.changed.wait(0.2)

    def distribute(self, url: str, spec_id: str = "s.0", **options: Any) -> dict[str, Any]:
        self.submit(url, spec_id, **options)
        return self.wait(spec_id)

    def crossed(self, place: Callable[[Host], str] = lambda host: host.idc) -> dict[str, int]:
        """Node -> bytes that came to it from hosts of other zones; or of other places, by what `place` says."""
        hosts = {peer.host.id: peer.host for peer in self.peers.values()}
        found = dict.fromkeys(self.peers, 0)
        with self.scheduler.changed:
            for task in self.scheduler.core.tasks.values():
                for parent, child, nbytes in task.flows:
                    if place(hosts[parent]) != place(hosts[child]):
                        found[hosts[child].node_id] += nbytes
        return found

    def pieces(self, node: str) -> int:
        """In the store of a node."""
        return sum(task.count for task in self.peers[node].store.tasks())

    def spoil(self, node: str, places: Iterable[int]) -> TaskStore:
        """Bit rot, which moves no time, in the only file that a node has; its task."""
        (task,) = self.peers[node].store.tasks()
        file = task.folder / "0"
        file.chmod(0o600)
        with file.open("r+b") as damaged:
            for place in places:
                damaged.seek(place)
                damaged.write(b"bit rot")
        task._marks = {number: task._data.mark(number) for number in task._marks}
        return task

    def close(self) -> None:
        self.scheduler.stop()
        for peer in self.peers.values():
            peer.stop()
