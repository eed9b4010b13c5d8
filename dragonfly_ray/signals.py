"""Interrupts of commands, heeded even where Python drops them.

What a signal's handler raises in the midst of a finalizer, of a callback of the garbage collector or of an
import is printed and lost. Whoever runs for long therefore asks from time to time.
"""

from __future__ import annotations

import threading
from typing import NoReturn

_seen = threading.Event()


def interrupt() -> NoReturn:
    """To be called by a signal's handler. Raises `KeyboardInterrupt`."""
    _seen.set()
    raise KeyboardInterrupt


def heed() -> None:
    """Raises `KeyboardInterrupt` if there has been an interrupt."""
    if _seen.is_set():
        raise KeyboardInterrupt
