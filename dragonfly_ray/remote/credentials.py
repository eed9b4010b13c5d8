"""Where a token for a manager comes from: an argument, `DRAGONFLY_TOKEN`, or a file for oneself alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dragonfly_ray.errors import InvalidRequestError

MANAGER_VARIABLE = "DRAGONFLY_MANAGER"
TOKEN_VARIABLE = "DRAGONFLY_TOKEN"
CA_VARIABLE = "DRAGONFLY_CA"


def token_file() -> Path:
    """`~/.config/dragonfly/token`, or below `XDG_CONFIG_HOME`."""
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "dragonfly" / "token"


def find_token(given: str | None = None) -> str:
    """Raises `InvalidRequestError` where there is none, or where others could read it."""
    token = given or os.environ.get(TOKEN_VARIABLE, "")
    if not token.strip():
        token = _from(token_file())
    if not token.isprintable() or not token.isascii() or " " in token:
        raise InvalidRequestError("invalid token: contains whitespace or non-ASCII characters")
    return token


def _from(path: Path) -> str:
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise InvalidRequestError(
                    f"{path}: token file is readable by other users; `chmod 600` it, or create a new token"
                )
            found = file.read(4096).strip()
    except FileNotFoundError:
        found = ""
    except OSError as error:
        raise InvalidRequestError(f"{path}: {error.strerror}") from None
    if not found:
        raise InvalidRequestError(
            f"no token for the manager: set {TOKEN_VARIABLE}, or put one into {path} (mode 0600)"
        )
    return found
