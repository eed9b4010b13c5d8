"""The outcomes of a peer's deliveries: told to their scheduler until it has heard them, and kept for one that asks again."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from dragonfly_ray import messages as m
from dragonfly_ray.errors import ClusterError
from dragonfly_ray.peer.scheduler_links import Links

log = logging.getLogger(__name__)

MAX_KEPT = 1000
"""Outcomes kept, for a scheduler that asks again after its restart."""
FIRST_RETRY_S, MAX_RETRY_S = 0.05, 2.0


class Outcomes:
    """Of one peer. `announce` tells the scheduler of a source, which has forgotten this peer, what is here. Safe from
    any thread."""

    def __init__(self, links: Links, announce: Callable[[str], None], stopping: threading.Event) -> None:
        self._links = links
        self._announce = announce
        self._stopping = stopping
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, m.Ended] = OrderedDict()
        self._unheard: dict[tuple[str, str], None] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    @property
    def unheard(self) -> dict[tuple[str, str], None]:
        """(spec id, run) of outcomes that the scheduler has not heard yet."""
        with self._lock:
            return dict(self._unheard)

    def of(self, deliver: m.Deliver) -> m.Ended | None:
        """The outcome of the same delivery, if it came before; that of another run of its id is forgotten."""
        with self._lock:
            ended = self._kept.get(deliver.spec.id)
            if ended and (ended.task_id, ended.run) == (deliver.task.id, deliver.spec.run):
                return ended
            self._kept.pop(deliver.spec.id, None)
            return None

    def keep(self, ended: m.Ended) -> None:
        with self._lock:
            self._kept[ended.spec_id] = ended
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def owe(self, ended: m.Ended) -> None:
        """From now on, and until it is heard, the delivery counts as carried."""
        with self._lock:
            self._unheard[ended.spec_id, ended.run] = None

    def tell(self, source_id: str, ended: m.Ended) -> None:
        """Until the scheduler has heard it."""
        pause = FIRST_RETRY_S
        while not self._stopping.is_set():
            try:
                answer = self._links.of(source_id).call(ended)
                if not isinstance(answer, m.ReportReply) or answer.known:
                    with self._lock:
                        self._unheard.pop((ended.spec_id, ended.run), None)
                    return
                self._announce(source_id)  # it has restarted
            except ClusterError as error:
                log.info("outcome of %s not delivered yet: %s", ended.spec_id, error)
            except Exception:
                log.exception("outcome of %s not delivered yet", ended.spec_id)
            self._stopping.wait(pause)
            pause = min(MAX_RETRY_S, pause * 2)
