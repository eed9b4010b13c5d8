"""`python -m examples.demo`: run it; `KEEP=1`: and leave everything running; `stop`: end what was left."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from examples.demo import keeping, show
from examples.demo.environment import explain


def main(arguments: list[str]) -> int:
    match arguments:
        case ["stop"]:
            return stop()
        case ["own"]:
            return show.main(keep=True)
        case []:
            return keep() if os.environ.get("KEEP", "") not in ("", "0") else show.main()
        case _:
            sys.stderr.write("usage: python -m examples.demo [stop]\n")
            return 2


def keep() -> int:
    with tempfile.TemporaryDirectory(prefix="dragonfly-keep-") as folder:
        try:
            code, kept = keeping.start_in_background(Path(folder) / "log")
        except KeyboardInterrupt:
            return show.INTERRUPTED
    if kept is None:
        return code or 1
    show.console.print(f"everything keeps running; console: {kept.url}   (`make stop` ends it)")
    return 0


def stop() -> int:
    found = keeping.all_kept()
    ended = [kept for kept in found if keeping.stop(kept)]
    show.console.print("stopped" if ended else "nothing was running")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        code = main(sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"{explain(error)}\n")
        code = 1
    if code == show.INTERRUPTED:
        # Everything is put away. Python itself would end by the signal, and not with this code, where the
        # interrupt came while a string was executed (as dataclasses do at import).
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
