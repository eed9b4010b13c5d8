"""The upload server of a peer: one thread that listens to all children, and a few that send pieces.

Pieces go from files to the stream (with TCP by `sendfile`). No thread ever waits for a child: a
stream that takes no more is handed back to the listening thread, which says when it does again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import threading
import time
from collections import deque

from dragonfly_ray.config import TransportSettings
from dragonfly_ray.errors import DragonflyError, GrantError, RemoteProtocolError
from dragonfly_ray.grants import GrantVerifier, Handshake, SigningKey
from dragonfly_ray.storage.task_pieces import Extent
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.bans import Bans
from dragonfly_ray.transport.child_connection import MAX_QUEUE, Child, Job, Library
from dragonfly_ray.transport.limiter import RateLimiter
from dragonfly_ray.transport.negotiation import ANSWERS_UNKNOWN, CURRENT, Capabilities
from dragonfly_ray.transport.sending import prepare, send_some
from dragonfly_ray.transport.states import MAX_UNKNOWN_FRAMES
from dragonfly_ray.transport.streams import Listener, Network, Stream
from dragonfly_ray.transport.tcp import TCP

log = logging.getLogger(__name__)

HELLO_TIMEOUT = 3.0
MAX_STRANGERS = 1024
"""Connections without a grant; the oldest is closed for one more."""
BAN_SECONDS = 600.0
"""For as long as a scheduler remembers a ban."""
STUCK_FACTOR = 5
"""A child that takes no byte for so many stall time-outs is closed."""
ROUND = 0.5
AFTER_ERROR_S = 0.05
"""Seconds before the listening thread goes on after an error, which might come again at once."""
READ = 64 * 1024
SEND_CHUNK = 1024 * 1024
LEAST_CHUNK = 4 * 1024
TICKS = 50
"""Under a rate limit, chunks of this fraction of a second: all children get some before any stalls."""
FULL = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class UploadServer:
    """Serves the tasks of `library` on `bind`:`port` (0: any), to whoever has a grant."""

    def __init__(
        self,
        bind: str,
        port: int,
        library: Library,
        settings: TransportSettings,
        verifier: GrantVerifier,
        host_id: str,
        key: SigningKey,
        network: Network = TCP,
        capabilities: Capabilities = CURRENT,
    ) -> None:
        self._library = library
        self._settings = settings
        self._verifier = verifier
        self._host_id = host_id
        self._key = key
        self._capabilities = capabilities
        self._bans = Bans(BAN_SECONDS)
        self._limiter = RateLimiter(settings.upload_rate)
        self._chunk = _chunk(settings.upload_rate)
        self._listener = network.listen(bind, port)
        self.port = self._listener.port
        self._poller = network.poller()
        self._children: dict[Stream | Listener, Child] = {}
        self._strangers: dict[Stream, Child] = {}
        self._read = memoryview(bytearray(READ))
        """What was received last, of any child."""
        self._known: dict[tuple[str, str], Child] = {}
        self._work: queue.SimpleQueue[Child | None] = queue.SimpleQueue()
        self._dead: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._banned: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._stopping = False
        self._paused = False
        """No descriptor was left: new connections wait until the next sweep."""
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._poller.add(self._listener)
        self._threads = [threading.Thread(target=self._listen, name="upload-listen", daemon=True)]
        self._threads += [
            threading.Thread(target=self._send, name=f"upload-{number}", daemon=True)
            for number in range(self._settings.upload_threads)
        ]
        for thread in self._threads:
            thread.start()

    def configured(self) -> None:
        """The settings have changed, in place."""
        rate = self._settings.upload_rate
        self._chunk = _chunk(rate)
        self._limiter.change(rate)

    def stop(self) -> None:
        """Closes every connection, and waits for the threads."""
        if self._stopping:
            return
        self._stopping = True
        self._poller.wake()
        for _ in range(self._settings.upload_threads):
            self._work.put(None)
        for thread in self._threads:
            thread.join(timeout=10)
        for child in list(self._children.values()):
            child.busy = False  # nobody is left to work on it
            self._close(child)
        self._listener.close()
        self._poller.close()

    def ban(self, task_id: str, host_id: str) -> None:
        """Closes the connection of this host for this task soon, and takes no other of it for a while."""
        self._banned.put((task_id, host_id))

    @property
    def connections(self) -> int:
        return len(self._children)

    @property
    def sending(self) -> int:
        """Children that wait for something of what they asked for, or are getting it."""
        return sum(bool(c.rest or c.head or c.jobs) for c in list(self._children.values()))

    # --- the listening thread ---------------------------------------------------------------

    def _listen(self) -> None:
        while not self._stopping:
            try:
                self._rounds()
            except Exception:
                # Whatever went wrong with one child: nobody else listens to all the others.
                log.exception("unexpected error in the upload server, continuing")
                time.sleep(AFTER_ERROR_S)

    def _rounds(self) -> None:
        swept = 0.0
        while not self._stopping:
            for source, readable, writable in self._poller.poll(ROUND):
                if source is self._listener:
                    self._accept()
                elif child := self._children.get(source):
                    self._serve(child, readable, writable)
            while not self._dead.empty():
                self._close(self._dead.get())
            now = time.monotonic()
            while not self._banned.empty():
                self._ban(*self._banned.get(), now)
            if now - swept > ROUND:
                swept = now
                self._sweep(now)

    def _accept(self) -> None:
        now = time.monotonic()
        for _ in range(256):
            try:
                stream = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in FULL:
                    # The listener stays readable: without a pause this thread would spin.
                    log.warning("cannot accept connections: %s", error.strerror)
                    self._pause()
                return
            child = Child(stream, now)
            self._children[stream] = self._strangers[stream] = child
            self._poller.add(stream)
            with contextlib.suppress(OSError):
                # It fits: nothing was sent before. Whoever does not get it cannot prove anything.
                stream.send(p.encode(p.Challenge(child.nonce, self._capabilities)))
            child.machine.sent(p.Challenge)
            if len(self._strangers) > MAX_STRANGERS:
                self._close(next(iter(self._strangers.values())))

    def _pause(self) -> None:
        if self._strangers:
            self._close(next(iter(self._strangers.values())))
        self._poller.watch(self._listener, read=False)
        self._paused = True

    def _serve(self, child: Child, readable: bool, writable: bool) -> None:
        if child.closing:
            return
        if writable:
            with child.lock:
                child.blocked = False
                self._poller.watch(child.stream)
            self._schedule(child)
        if not readable:
            return
        try:
            count = child.stream.recv_into([self._read])
            if not count:
                self._close(child)
                return
            child.seen = time.monotonic()
            for frame in child.parser.feed(self._read[:count]):
                self._on_frame(child, frame)
        except BlockingIOError:
            return
        except (OSError, RemoteProtocolError) as error:
            log.debug("child %s closed: %s", child.host_id or "unknown", error)
            self._close(child)
        except Exception:
            # One child's words must never end the thread that listens to all of them.
            log.exception("child %s closed", child.host_id or "unknown")
            self._close(child)

    def _on_frame(self, child: Child, frame: p.Frame | p.Unknown) -> None:
        if child.closing:
            return
        if isinstance(frame, p.Unknown):
            self._on_unknown(child, frame)
            return
        child.machine.received(type(frame))
        if isinstance(frame, p.Hello):
            self._greet(child, frame)
            return
        shared = child.shared
        assert shared is not None
        match frame:
            case p.Request():
                self._queue_pieces(child, frame)
            case p.Have():
                if len(frame.items) > child.pieces:
                    raise RemoteProtocolError(
                        f"HAVE lists {len(frame.items)} pieces, the task has {child.pieces}"
                    )
                child.inside(*(index for index, _ in frame.items))
                shared.on_have(child.host_id, list(frame.items))
            case p.Corrupt():
                child.inside(frame.index)
                if child.was_sent(frame.index):
                    shared.on_corrupt(child.host_id, frame.index)
            case p.Cancel():
                child.inside(frame.first, frame.first + frame.count - 1)
                self._cancel(child, frame)
            case p.ManifestRequest():
                if not 0 < frame.length <= p.MANIFEST_CHUNK:
                    raise RemoteProtocolError(
                        f"manifest request of {frame.length} bytes exceeds the limit of {p.MANIFEST_CHUNK}"
                    )
                self._queue(child, frame)
            case p.Ping():
                self._queue(child, p.encode(p.Pong()))
            case p.Unsupported():
                log.debug("child %s does not support frame type %d", child.host_id, frame.kind)

    def _on_unknown(self, child: Child, frame: p.Unknown) -> None:
        """It may be of a later version: it hears that it is not understood, a few times."""
        child.unknown += 1
        if child.unknown > MAX_UNKNOWN_FRAMES:
            raise RemoteProtocolError(f"{child.unknown} frames of unknown types")
        self._queue(child, p.encode(p.Unsupported(frame.kind)))

    def _greet(self, child: Child, hello: p.Hello) -> None:
        agreed = self._capabilities.agree(hello.capabilities)
        if agreed is None:
            text = (
                f"protocol version {hello.capabilities} is not supported (this host has {self._capabilities})"
            )
            self._refuse(child, text, p.Refusal.VERSION)
            return
        both = Handshake(
            hello.task_id,
            hello.host_id,
            self._host_id,
            child.nonce,
            hello.nonce,
            self._capabilities.signed,
            hello.capabilities.signed,
        )
        try:
            key = self._verifier.verify(hello.grant, hello.task_id, hello.host_id)
            both.verify("child", key, hello.proof)
        except GrantError as error:
            self._refuse(child, str(error), p.Refusal.GRANT)
            return
        if self._bans.holds(hello.task_id, hello.host_id, time.monotonic()):
            self._refuse(child, "banned for this task", p.Refusal.BANNED)
            return
        shared = self._library.shared(hello.task_id)
        if shared is None:
            self._refuse(child, "unknown task", p.Refusal.OTHER)
            return
        self._strangers.pop(child.stream, None)
        child.agreed = agreed
        child.parser.most = p.MAX_FRAME
        child.parser.skip = agreed.version >= ANSWERS_UNKNOWN
        child.shared, child.host_id, child.task_id = shared, hello.host_id, hello.task_id
        previous = self._known.get((hello.task_id, hello.host_id))
        self._known[hello.task_id, hello.host_id] = child
        if previous is not None:
            self._close(previous)
        known = shared.digests()
        child.pieces = len(known)
        child.sent = bytearray(-(-len(known) // 8))
        digests = tuple((i, d) for i, d in enumerate(known) if d is not None)
        child.machine.sent(p.Accepted)
        self._queue(child, p.encode(p.Accepted(both.sign("parent", self._key))))
        for word in p.welcome(shared.bitmap(child.host_id), digests):
            child.machine.sent(type(word))
            self._queue(child, word)
        child.machine.greeted()
        shared.on_joined(child.host_id)

    def _refuse(self, child: Child, reason: str, code: p.Refusal) -> None:
        """One short frame, if it fits; nobody waits for it to be read."""
        child.machine.sent(p.Refused)
        with contextlib.suppress(OSError):
            child.stream.send(p.encode(p.Refused(reason, code)))
        self._close(child)

    def _ban(self, task_id: str, host_id: str, now: float) -> None:
        self._bans.add(task_id, host_id, now)
        if child := self._known.get((task_id, host_id)):
            self._close(child)

    def _queue_pieces(self, child: Child, request: p.Request) -> None:
        child.inside(request.first, request.first + request.count - 1)
        if not request.count:
            raise RemoteProtocolError(f"empty request at piece {request.first}")
        room = max(0, MAX_QUEUE - len(child.jobs))
        with child.lock:
            child.jobs.extend(range(request.first, request.first + min(room, request.count)))
            if request.count > room:
                child.jobs.append(p.encode(p.Busy(request.first + room, request.count - room)))
            child.check()
        self._schedule(child)

    def _cancel(self, child: Child, frame: p.Cancel) -> None:
        """What is not under way yet is not sent; every request has one answer all the same."""
        unwanted = range(frame.first, frame.first + frame.count)
        with child.lock:
            jobs = [p.encode(p.Busy(j, 1)) if isinstance(j, int) and j in unwanted else j for j in child.jobs]
            child.jobs = deque(jobs)

    def _queue(self, child: Child, job: Job) -> None:
        with child.lock:
            child.jobs.append(job)
            child.check()
        self._schedule(child)

    def _sweep(self, now: float) -> None:
        if self._paused:
            self._paused = False
            self._poller.watch(self._listener)
        for child in list(self._strangers.values()):
            if now - child.since > HELLO_TIMEOUT:
                self._close(child)
        stuck = STUCK_FACTOR * self._settings.stall_timeout
        for child in list(self._children.values()):
            if child.blocked:
                # TCP reports room only when a third of its buffer is free: ask what left.
                left = child.stream.info().unsent
                if left != child.unsent:
                    child.unsent, child.moved = left, now
                if now - child.moved > stuck:
                    self._close(child)
            elif now - child.seen > self._settings.idle_timeout:
                self._close(child)

    def _close(self, child: Child) -> None:
        """In the listening thread only, and while no sender uses it: its descriptor may be another's right after."""
        with child.lock:
            child.closing = True
            if child.busy:
                # What still comes is not heard: its host may have come back as another process.
                self._poller.remove(child.stream)
                child.stream.shutdown()
                return
        if self._children.get(child.stream) is not child:
            return
        del self._children[child.stream]
        self._strangers.pop(child.stream, None)
        key = child.task_id, child.host_id
        left = self._known.get(key) is child
        if left:
            del self._known[key]
        if child.uses:
            child.uses.close()
        self._poller.remove(child.stream)
        child.stream.close()
        if child.shared and left:
            child.shared.on_left(child.host_id)

    # --- the sending threads ----------------------------------------------------------------

    def _schedule(self, child: Child) -> None:
        with child.lock:
            if child.busy or child.blocked or child.closing:
                return
            if not (child.jobs or child.rest or child.head):
                return
            child.busy = True
        self._work.put(child)

    def _send(self) -> None:
        while (child := self._work.get()) is not None:
            try:
                again = self._turn(child)
            except (OSError, DragonflyError, KeyError) as error:
                log.debug("child %s: %s", child.host_id, error)
                with child.lock:
                    child.closing, again = True, False
            except Exception:
                log.exception("child %s closed", child.host_id)
                with child.lock:
                    child.closing, again = True, False
            if again:
                # One piece a turn: children share the link fairly.
                self._work.put(child)
                continue
            with child.lock:
                child.busy = False
                closing = child.closing
            if closing:
                self._dead.put(child)
                self._poller.wake()
            else:
                self._schedule(child)

    def _turn(self, child: Child) -> bool:
        """Sends until the stream takes no more or a piece is through; under a rate limit, one chunk.

        Says whether there is more to do.
        """
        if child.closing or self._stopping:
            return False
        if not (child.head or child.rest):
            with child.lock:
                if not child.jobs:
                    return False
                job = child.jobs.popleft()
            prepare(child, job)
        try:
            while child.head:
                child.head = child.head[child.stream.send(child.head, more=bool(child.rest)) :]
                child.moved = time.monotonic()
            while child.rest:
                fd, offset, length = child.rest[0]
                count = send_some(child, fd, offset, min(length, self._chunk))
                child.seen = child.moved = time.monotonic()
                if child.shared:
                    child.shared.on_sent(child.host_id, count)
                if count < length:
                    child.rest[0] = Extent(fd, offset + count, length - count)
                else:
                    child.rest.pop(0)
                self._limiter.take(count)
                if child.rest and self._limiter.rate is not None:
                    return True
        except BlockingIOError:
            with child.lock:
                child.blocked = True
                self._poller.watch(child.stream, write=True)
            return False
        if child.uses:
            child.uses.close()
            child.uses = None
        return bool(child.jobs)


def _chunk(rate: int | None) -> int:
    """Bytes that are sent at once."""
    return SEND_CHUNK if rate is None else min(SEND_CHUNK, max(LEAST_CHUNK, rate // TICKS))
