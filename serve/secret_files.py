"""Secrets that were given to whoever starts the manager: replicas get them as files of the head node.

Ray keeps an application's arguments in its control store (GCS), where everybody in the cluster can read them.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from dragonfly_ray.errors import InvalidRequestError
from dragonfly_ray.private_folders import private_folder
from dragonfly_ray.serve.settings import ManagerSettings

_SECRET_QUERY = frozenset({"password", "sslpassword"})
"""Parameters of libpq."""


def given_secrets(settings: ManagerSettings) -> list[str]:
    """The names of the settings that hold a secret themselves, rather than a file's path."""
    found = [] if settings.secret_key is None else ["secret_key"]
    if settings.database_url_file is None and has_password(settings.database_url):
        found.append("database_url")
    return found


def has_password(url: str) -> bool:
    """Of a database's URL; what cannot be read as one is taken for a secret."""
    if not url:
        return False
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return True
    return bool(parsed.password) or not _SECRET_QUERY.isdisjoint(key.lower() for key in parsed.query)


def refuse_elsewhere(settings: ManagerSettings, *, here: bool) -> None:
    """`here`: this is the head node. Raises `InvalidRequestError` where replicas could not read files of it."""
    found = given_secrets(settings)
    several = not settings.embedded and (settings.replicas > 1 or bool(settings.node_labels))
    if not found or (here and not several):
        return
    where = "replicas may run on other nodes" if here else "this is not the head node"
    raise InvalidRequestError(
        f"{', '.join(found)}: {where}, and Ray's control store would persist the value; put it into a file on each "
        f"node that replicas run on, and set {', '.join(f'{name}_file' for name in found)}"
    )


def in_files(settings: ManagerSettings, application: str) -> ManagerSettings:
    """The same settings with paths in `state_dir` in place of secrets. `application`: whose files they are.

    Raises `StorageError` where `state_dir` is not ours alone, `InvalidRequestError` where it cannot be written to.
    """
    changes: dict[str, object] = {}
    for name in given_secrets(settings):
        value = getattr(settings, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        folder = private_folder(settings.state_dir, "state_dir")
        # Not the file of the key that the manager makes by itself, which secrets may be encrypted with.
        changes[f"{name}_file"] = _write(folder / f"{application}.{name}", text, name)
        changes[name] = None if isinstance(value, SecretStr) else ""
    return settings.model_copy(update=changes)


def _write(path: Path, text: str, name: str) -> Path:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        try:
            with open(
                os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w"
            ) as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidRequestError(
            f"{path}: cannot write {name} ({error.strerror}); set {name}_file"
        ) from None
    return path


__all__ = ["given_secrets", "has_password", "in_files", "refuse_elsewhere"]
