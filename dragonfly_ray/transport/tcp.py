"""Streams over TCP. Pieces leave by `sendfile`, and arrive in the buffers that they are meant for."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import sys
import termios
from collections.abc import Sequence

from dragonfly_ray.transport.streams import FileUnreadableError, Listener, Ready, Stream, StreamInfo

KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
BACKLOG = 4096
SOCKET_ERRORS = frozenset(
    (errno.EAGAIN, errno.EINTR, errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN,
     errno.ESHUTDOWN, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN,
     errno.ENOBUFS, errno.ENOMEM, errno.EBADF)
)  # fmt: skip
"""Of `sendfile`, for reasons of the connection; all others are the file's."""


class TcpStream:
    """`timeout` in seconds; 0: calls never wait."""

    def __init__(self, sock: socket.socket, timeout: float, peer: str = "") -> None:
        self._sock = sock
        self._timeout = timeout
        self._peer = peer
        self._low = 1
        sock.settimeout(timeout)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __repr__(self) -> str:
        return f"TcpStream({self._peer})"

    def fileno(self) -> int:
        """-1 once it is closed."""
        return self._sock.fileno()

    def recv_into(self, views: Sequence[memoryview], least: int = 1) -> int:
        if least != self._low:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            self._low = least
        try:
            return self._sock.recvmsg_into(views)[0]
        except TimeoutError:
            # Too few to wake up for is not nothing. (With a time-out, Python's sockets do not block.)
            try:
                return os.readv(self._sock.fileno(), views)
            except BlockingIOError:
                raise TimeoutError from None

    def send(self, data: bytes | memoryview, *, more: bool = False) -> int:
        return self._sock.send(data, socket.MSG_MORE if more else 0)

    def send_file(self, fd: int, offset: int, length: int) -> int:
        try:
            return os.sendfile(self._sock.fileno(), fd, offset, length)
        except BlockingIOError:
            if not self._timeout:
                raise
            self._await_room()
            return self.send_file(fd, offset, length)
        except OSError as error:
            if error.errno in SOCKET_ERRORS:
                raise
            raise FileUnreadableError(error.errno, error.strerror) from None

    def _await_room(self) -> None:
        waiting = select.poll()
        waiting.register(self._sock, select.POLLOUT)
        if not waiting.poll(self._timeout * 1000):
            raise TimeoutError

    def info(self) -> StreamInfo:
        try:
            looking = select.poll()
            looking.register(self._sock, select.POLLRDHUP)
            ended = bool(looking.poll(0))
            # TIOCOUTQ: what the kernel still holds for the other side.
            unsent = int.from_bytes(fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, ValueError):
            return StreamInfo(self._peer, ended=True, unsent=0)
        return StreamInfo(self._peer, ended, unsent)

    def shutdown(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.shutdown()
        self._sock.close()


class TcpListener:
    def __init__(self, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sock = socket.create_server((address, port), family=family, backlog=BACKLOG)
        self._sock.setblocking(False)
        self._port: int = self._sock.getsockname()[1]

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def port(self) -> int:
        return self._port

    def accept(self) -> TcpStream:
        sock, address = self._sock.accept()
        return TcpStream(sock, 0.0, f"{address[0]}:{address[1]}")

    def close(self) -> None:
        self._sock.close()


class EpollPoller:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._sources: dict[int, TcpStream | TcpListener] = {}

    def add(self, source: Stream | Listener) -> None:
        mine = _mine(source)
        self._sources[mine.fileno()] = mine
        self._epoll.register(mine.fileno(), select.EPOLLIN | select.EPOLLRDHUP)

    def watch(self, source: Stream | Listener, *, read: bool = True, write: bool = False) -> None:
        events = (select.EPOLLIN | select.EPOLLRDHUP) * read | select.EPOLLOUT * write
        self._epoll.modify(_mine(source).fileno(), events)

    def remove(self, source: Stream | Listener) -> None:
        mine = _mine(source)
        if self._sources.get(mine.fileno()) is mine:
            del self._sources[mine.fileno()]
            with contextlib.suppress(OSError):
                self._epoll.unregister(mine.fileno())

    def poll(self, timeout: float) -> list[Ready]:
        found = []
        for fd, events in self._epoll.poll(timeout):
            if fd == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif source := self._sources.get(fd):
                readable, writable = bool(events & ~select.EPOLLOUT), bool(events & select.EPOLLOUT)
                found.append(Ready(source, readable, writable))
        return found

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._wake)


def _mine(source: Stream | Listener) -> TcpStream | TcpListener:
    assert isinstance(source, TcpStream | TcpListener)
    return source


class TcpNetwork:
    def connect(self, address: str, port: int, connect_timeout: float, timeout: float) -> TcpStream:
        sock = socket.create_connection((address, port), connect_timeout)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError:
            sock.close()
            raise
        return TcpStream(sock, timeout, f"{address}:{port}")

    def listen(self, address: str, port: int) -> TcpListener:
        return TcpListener(address, port)

    def poller(self) -> EpollPoller:
        return EpollPoller()


TCP = TcpNetwork()
