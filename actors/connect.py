"""The way to a cluster's actors from a driver, a task, or a replica of another application."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from dragonfly_ray.actors.failures import UNANSWERED, CallFailure, answered, failure
from dragonfly_ray.actors.handles import reach
from dragonfly_ray.errors import DragonflyError, NotRunningError

K = TypeVar("K")
KNOCK_TIMEOUT = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
MOST_HANDLES = 20_000
"""Kept; nodes come and go."""


def connect() -> None:
    """Joins the cluster that runs here (or where RAY_ADDRESS says), unless that is done."""
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "auto")
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise NotRunningError(
            f"no Ray cluster reachable at {address} ({type(error).__name__}); start one with `ray start "
            "--head`, or check RAY_ADDRESS and, if the cluster requires one, the token"
        ) from None


def _knock(address: str) -> None:
    """Raises `OSError` at once where nobody listens: Ray itself takes more than a minute to find out."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_TIMEOUT).close()
        _present_token(address)


def _present_token(address: str) -> None:
    """Raises `PermissionError` at once where it is refused: Ray itself tries for 20 s, and says so each second."""
    try:
        import grpc
        from ray._private.grpc_utils import init_grpc_channel
    except ImportError:
        return  # another Ray, which will find out by itself
    channel = init_grpc_channel(address)
    try:
        channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=KNOCK_TIMEOUT)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise PermissionError("token rejected") from None
    finally:
        channel.close()


class Actors:
    """Calls to a cluster's named actors. Safe from any thread.

    Handles are kept, and looked up again when one does not answer: an actor that was restarted or
    replaced is found under its name. What an actor refuses is raised as it is; whatever else goes wrong
    becomes `NotRunningError`.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._handles: dict[str, Any] = {}
        self._lock = threading.Lock()

    def call(self, name: str, method: str, *args: Any, timeout: float, patience: float = 0.0) -> Any:
        """The answer, waited for up to `timeout` seconds.

        For `patience` seconds an actor that is away is asked again; only for what may be done twice.
        """
        deadline, pause = time.monotonic() + patience, FIRST_PAUSE
        while True:
            kept = name in self._handles
            try:
                return self.start(name, method, *args).result(timeout)
            except UNANSWERED as error:
                failed = self._failed(name, error)
            if kept and failed.verdict == "died":
                continue  # a predecessor's handle
            if failed.verdict == "alive" or time.monotonic() + pause > deadline:
                raise failed.error from None
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def ask(self, name: str, method: str, *args: Any, timeout: float | None) -> Any:
        """As `call`, in an actor's loop and once. Raises `CallFailure`."""
        try:
            handle = self._handles.get(name) or await asyncio.to_thread(self._handle, name)
            return await answered(getattr(handle, method).remote(*args), timeout, name)
        except (NotRunningError, CallFailure) as error:
            raise self._failed(name, error) from None

    def forget(self, name: str) -> None:
        """The handle: the actor is another now."""
        with self._lock:
            self._handles.pop(name, None)

    def _failed(self, name: str, error: Exception) -> CallFailure:
        self.forget(name)
        return error if isinstance(error, CallFailure) else failure(error, name)

    def start(self, name: str, method: str, *args: Any) -> Future[Any]:
        """Begins a call. Raises `NotRunningError` where there is no such actor."""
        # Not ray.get: called from a thread of an asynchronous actor, it warns.
        found: Future[Any] = getattr(self._handle(name), method).remote(*args).future()
        return found

    def _handle(self, name: str) -> Any:
        with self._lock:
            handle = self._handles.get(name)
        if handle is None:
            handle = reach(name, self.namespace)
            with self._lock:
                self._handles[name] = handle
                if len(self._handles) > MOST_HANDLES:
                    del self._handles[next(iter(self._handles))]
        return handle

    def gather(
        self, calls: Mapping[K, tuple[Any, ...]], timeout: float, failed: Callable[[K, DragonflyError], None]
    ) -> dict[K, Any]:
        """Answers to (actor, method, arguments …), all asked at once, as far as they come in time.

        `failed` is told of the others.
        """
        begun: dict[K, Future[Any]] = {}
        found: dict[K, Any] = {}

        for key, (name, method, *args) in calls.items():
            try:
                begun[key] = self.start(name, method, *args)
            except NotRunningError as error:
                failed(key, error)
        wait_for(begun.values(), timeout)
        for key, future in begun.items():
            try:
                found[key] = future.result(0)
            except UNANSWERED as error:
                failed(key, self._failed(calls[key][0], error).error)
        return found
