"""A real SFTP server (paramiko) on loopback."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any, Self

import paramiko

USER, PASSWORD = "reader", "secret"
_KEY = paramiko.RSAKey.generate(2048)


class _Login(paramiko.ServerInterface):  # type: ignore[misc]
    def check_auth_password(self, username: str, password: str) -> Any:
        good = (username, password) == (USER, PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> Any:
        return paramiko.OPEN_SUCCEEDED

    def get_allowed_auths(self, username: str) -> str:
        return "password"


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    """To be read, below `root`."""

    def __init__(self, server: paramiko.ServerInterface, root: Path, *args: Any, **options: Any) -> None:
        super().__init__(server, *args, **options)
        self._root = root

    def _place(self, path: str) -> Path:
        return self._root / str(self.canonicalize(path)).lstrip("/")

    def list_folder(self, path: str) -> Any:
        try:
            return [
                paramiko.SFTPAttributes.from_stat(each.lstat(), filename=each.name)
                for each in self._place(path).iterdir()
            ]
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def stat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(self._place(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> Any:
        try:
            handle = paramiko.SFTPHandle(flags)
            handle.filename = str(self._place(path))
            handle.readfile = os.fdopen(os.open(handle.filename, os.O_RDONLY), "rb")
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        return handle


class Sftp:
    """Serves `root`. `open`: connections there are."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._transports: list[paramiko.Transport] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"sftp://{USER}:{PASSWORD}@127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def open(self) -> int:
        return sum(each.is_active() for each in self._transports)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for each in self._transports:
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(_KEY)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, self.root)
            self._transports.append(transport)
            transport.start_server(event=threading.Event(), server=_Login())
