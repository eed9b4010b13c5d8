"""Messages of schedulers, each handled once however often it comes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

MAX_SENDERS = 64
"""Schedulers and their predecessors that are remembered."""


class _Sender:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.last = 0


class Inbox:
    """A sender numbers its messages upwards, and sends one again, with its number, until it is acknowledged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._senders: OrderedDict[str, _Sender] = OrderedDict()

    def take(self, sender: str, number: int, handle: Callable[[], None]) -> bool:
        """Whether it was handled now; False: it was before, or what was sent after it. One at a time of each sender."""
        with self._lock:
            known = self._senders.setdefault(sender, _Sender())
            self._senders.move_to_end(sender)
            while len(self._senders) > MAX_SENDERS:
                self._senders.popitem(last=False)
        with known.lock:
            if number <= known.last:
                return False
            handle()
            known.last = number
            return True
