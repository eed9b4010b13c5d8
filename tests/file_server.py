"""A plain file server in Python that stands in for nginx where that is not installed.

    python tests/file_server.py STATE

`STATE/server.json` has its settings; the answers are logged there as tests/nginx.py has nginx log them. Ranges,
conditional requests, ETags and listings are nginx's. Whoever connects to its Unix socket gets a byte once all answers
that were sent whole are in the log. Needs nothing but Python.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

CHUNK = 1 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20}
_RATE = re.compile(r"limit_rate\s+(\d+)([km]?)", re.IGNORECASE)
_JSON = re.compile(r"autoindex_format\s+json")
_RETURN = re.compile(
    r"location\s+(=\s+)?(?P<path>\S+)\s*\{\s*return\s+(?P<status>30[1278])\s+(?P<to>[^;]+);\s*\}"
)


class Directives(NamedTuple):
    """What it understands of nginx's configuration. `rate`: bytes a second of each answer, 0: any."""

    rate: int = 0
    json: bool = False
    redirects: tuple[tuple[str, int, str], ...] = ()


def understood(extra: str) -> Directives | None:
    """None: there is something else in it."""
    redirects = tuple((m["path"], int(m["status"]), m["to"].strip()) for m in _RETURN.finditer(extra))
    rate, as_json = 0, False
    for part in filter(None, map(str.strip, _RETURN.sub("", extra).split(";"))):
        if found := _RATE.fullmatch(part):
            rate = int(found[1]) * _UNITS[found[2].lower()]
        elif _JSON.fullmatch(part):
            as_json = True
        else:
            return None
    return Directives(rate, as_json, redirects)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], root: Path, log: Path, directives: Directives) -> None:
        super().__init__(address, _Handler)
        self.root, self.directives = root, directives
        self._log = log.open("a", buffering=1)
        self._ending: set[_Handler] = set()
        self._changed = threading.Condition()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone."""

    def ends(self, answer: _Handler) -> None:
        """Its last bytes are about to be sent: whoever has them may look into the log."""
        with self._changed:
            self._ending.add(answer)

    def log_answer(self, answer: _Handler, line: str) -> None:
        with self._changed:
            self._log.write(line)
            self._ending.discard(answer)
            self._changed.notify_all()

    def tell_when_logged(self, listener: socket.socket) -> None:
        while True:
            with listener.accept()[0] as asked:
                self._await_ending()
                asked.send(b".")

    def _await_ending(self) -> None:
        """Those that end now; not for ever, as somebody may not read."""
        with self._changed:
            ending = set(self._ending)
            self._changed.wait_for(lambda: not ending & self._ending, timeout=2)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self._began, self._status, self._sent = time.time(), 0, 0
        try:
            self._choose()
        finally:
            self._cork(False)
            now = time.time()
            asked = self.headers.get("Range", "-")
            path = unquote(self.path.partition("?")[0])
            self.server.log_answer(
                self,
                f"{now:.3f} {now - self._began:.3f} {self.client_address[0]} {self._status} {self._sent} "
                f'{self.command} "{asked}" {path}\n',
            )

    def _choose(self) -> None:
        path = unquote(self.path.partition("?")[0])
        for where, status, to in self.server.directives.redirects:
            if path == where or (where.endswith("/") and path.startswith(where)):
                return self._send(status, b"", {"Location": to})
        found = self.server.root / path.lstrip("/")
        try:
            if ".." in Path(path).parts:
                return self._send(400, b"bad path\n")
            if not found.is_dir():
                return self._file(found)
            if path.endswith("/"):
                return self._listing(found, path)
            return self._send(301, b"", {"Location": quote(path) + "/"})
        except (FileNotFoundError, NotADirectoryError):
            return self._send(404, b"not found\n")
        except PermissionError:
            return self._send(403, b"forbidden\n")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._begin(status, len(body), headers or {"Content-Type": "text/plain"})
        if body and self.command != "HEAD":
            self.server.ends(self)
            self.wfile.write(body)
            self._sent = len(body)

    def _begin(self, status: int, length: int, headers: dict[str, str]) -> None:
        self._status = status
        self._cork(True)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(length))
        if not length or self.command == "HEAD":
            self.server.ends(self)
        self.end_headers()

    def _cork(self, on: bool) -> None:
        """The head leaves with the first bytes of the body, as nginx sends them: nobody hangs up in between."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)

    def _listing(self, folder: Path, path: str) -> None:
        entries = [(p, p.stat()) for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
        if self.server.directives.json:
            rows = [
                {"name": p.name, "type": "directory" if p.is_dir() else "file",
                 "mtime": formatdate(s.st_mtime, usegmt=True), **({} if p.is_dir() else {"size": s.st_size})}
                for p, s in entries
            ]  # fmt: skip
            return self._send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})
        lines = []
        for p, s in sorted(entries, key=lambda e: (not e[0].is_dir(), e[0].name)):
            name = p.name + ("/" if p.is_dir() else "")
            when = time.strftime("%d-%b-%Y %H:%M", time.gmtime(s.st_mtime))
            size = "-" if p.is_dir() else str(s.st_size)
            pad = " " * max(1, 51 - len(name))
            lines.append(f'<a href="{quote(name)}">{html.escape(name)}</a>{pad}{when} {size:>19}\n')
        title = f"Index of {html.escape(path)}"
        page = (
            f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<h1>{title}</h1><hr><pre>"
            f'<a href="../">../</a>\r\n{"".join(lines)}</pre><hr></body>\r\n</html>\r\n'
        )
        return self._send(200, page.encode(), {"Content-Type": "text/html"})

    def _file(self, path: Path) -> None:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            etag = f'"{int(found.st_mtime):x}-{found.st_size:x}"'
            modified = int(found.st_mtime)
            headers = {"ETag": etag, "Last-Modified": formatdate(modified, usegmt=True)}
            if status := self._condition(etag, modified):
                return self._send(status, b"", headers)
            start, end, status = self._range(etag, modified, found.st_size)
            if status == 416:
                return self._send(416, b"", {"Content-Range": f"bytes */{found.st_size}"})
            if status == 206:
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.st_size}"
            headers |= {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
            self._begin(status, end - start, headers)
            if self.command != "HEAD" and start < end:
                self._stream(file.fileno(), start, end)
        return None

    def _condition(self, etag: str, modified: int) -> int:
        """412 or 304, else 0."""
        match, none = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if match is not None and match != "*" and etag not in match:
            return 412
        before, since = self.headers.get("If-Unmodified-Since"), self.headers.get("If-Modified-Since")
        if match is None and before is not None and modified > _date(before):
            return 412
        if none is not None:
            return 304 if none == "*" or etag in none else 0
        return 304 if since is not None and modified <= _date(since) else 0

    def _range(self, etag: str, modified: int, size: int) -> tuple[int, int, int]:
        """First byte, the one after the last, status."""
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if condition is not None and condition != etag and _date(condition) != modified:
            asked = None
        if not asked or asked[0] == "bytes=-":
            return 0, size, 200
        if not asked[1]:
            return max(0, size - int(asked[2])), size, 206
        start = int(asked[1])
        end = min(size, int(asked[2]) + 1) if asked[2] else size
        return start, end, 206 if start < end else 416

    def _stream(self, descriptor: int, start: int, end: int) -> None:
        rate = self.server.directives.rate
        self.wfile.flush()
        out = self.connection.fileno()
        gone = select.poll()
        gone.register(out, select.POLLRDHUP)
        began, first = time.monotonic(), start
        while start < end:
            # In steps of a tenth of a second; what is early waits, but for nobody who has hung up.
            early = (start - first) / rate - (time.monotonic() - began) if rate else 0.0
            if start > first and gone.poll(max(0.0, early) * 1000):
                raise ConnectionError("the client has hung up")
            step = max(1, rate // 10) if rate else CHUNK
            if end - start <= step:
                self.server.ends(self)
            count = os.sendfile(out, descriptor, start, min(step, end - start))
            if not count:
                raise ConnectionError("the file became shorter")
            start += count
            self._sent += count
            self._cork(False)


def _date(text: str) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except ValueError:
        return -1


def main(state: Path) -> None:
    settings = json.loads((state / "server.json").read_text())
    directives = understood(settings["extra"])
    assert directives is not None
    address = (settings["address"], settings["port"])
    server = Server(address, Path(settings["root"]), state / "access.log", directives)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # at once; connections break
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(settings["logged"])
    listener.listen(64)
    threading.Thread(target=server.tell_when_logged, args=(listener,), daemon=True).start()
    draft = state / "pid.new"
    draft.write_text(f"{os.getpid()}\n")
    draft.replace(state / "pid")
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
