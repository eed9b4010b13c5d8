"""Everything that this package raises on purpose.

* DragonflyError
  x InvalidRequestError (ValueError)      bad input, refused before any work
    + UnknownNodesError                   a node selector that selects nothing, or a dead node
    + UnsafePathError                     a name in a listing that would leave its folder
    + AccessError (PermissionError)       a manager does not know who asks, or does not let them
  x SourceError (OSError)                 the origin
    + SourceNotFoundError (FileNotFoundError)
    + SourceAuthError (PermissionError)
    + SourceForbiddenError                blocked by the URL policy
    + SourceBusyError                     429, 503: carries retry_after
    + SourceChangedError                  another version than the one resolved
    + SourceTruncatedError                fewer bytes than promised
    + SourceUnreachableError (ConnectionError)
    + SourceUnsupportedError              no such protocol, no listing
    + SourceArchivedError                 kept in an archive; must be restored first
  x IntegrityError                        bytes that do not match their digest
  x StorageError (OSError)
    + StorageFullError
    + DestinationError                    `dest` cannot be written
  x TransportError (ConnectionError)
    + ProtocolError                       the piece protocol was broken
      - LocalProtocolError                by this side: nobody else is to blame
      - RemoteProtocolError               by the other side
    + GrantError                          no valid grant
    + StalledError (TimeoutError)
  x ClusterError (RuntimeError)
    + NotRunningError                     no scheduler or peer answers
    + NodeLostError
  x DistributionFailedError               carries the Distribution
  x CancelledByUserError
  x VaultError (RuntimeError)             the manager's key does not open its secrets
  x DeadlineError (TimeoutError)

Every one pickles, since all of them cross actor boundaries, and prints as one line:
what failed, where, and what to do. None carries a secret.
"""

from __future__ import annotations

from typing import Any

from dragonfly_ray.names import shown


class DragonflyError(Exception):
    """Base of every error of this package."""

    kind = "error"

    def __init__(self, message: str = "", **details: Any) -> None:
        message = shown(message)  # on one line, whatever names it tells of
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details)

    def to_dict(self) -> dict[str, Any]:
        """`{"kind", "message", "details"}`, ready for JSON."""
        details = {name: _plain(value) for name, value in self.details.items()}
        return {"kind": self.kind, "message": self.message, "details": details}


def _plain(value: Any) -> Any:
    to_dict = getattr(value, "to_dict", None)
    return to_dict() if callable(to_dict) else value


def _rebuild(cls: type[DragonflyError], message: str, details: dict[str, Any]) -> DragonflyError:
    return cls(message, **details)


class InvalidRequestError(DragonflyError, ValueError):
    kind = "invalid-request"


class UnknownNodesError(InvalidRequestError):
    kind = "unknown-nodes"


class UnsafePathError(InvalidRequestError):
    kind = "unsafe-path"


class AccessError(InvalidRequestError, PermissionError):
    kind = "access"


class SourceError(DragonflyError, OSError):
    kind = "source"


class SourceNotFoundError(SourceError, FileNotFoundError):
    kind = "source-not-found"


class SourceAuthError(SourceError, PermissionError):
    kind = "source-auth"


class SourceForbiddenError(SourceError, PermissionError):
    """Blocked by the URL policy: its scheme, host or address is not allowed."""

    kind = "source-forbidden"


class SourceBusyError(SourceError):
    """The origin answers HTTP 429 or 503. `retry_after`: seconds (its Retry-After), or None."""

    kind = "source-busy"

    @property
    def retry_after(self) -> float | None:
        value = self.details.get("retry_after")
        return None if value is None else float(value)


class SourceChangedError(SourceError):
    kind = "source-changed"


class SourceTruncatedError(SourceError):
    kind = "source-truncated"


class SourceUnreachableError(SourceError, ConnectionError):
    kind = "source-unreachable"


class SourceUnsupportedError(SourceError):
    kind = "source-unsupported"


class SourceArchivedError(SourceError):
    """The store has it, but gives it out only once it has been restored (S3 Glacier, Azure's archive tier)."""

    kind = "source-archived"


class IntegrityError(DragonflyError):
    kind = "integrity"


class StorageError(DragonflyError, OSError):
    kind = "storage"


class StorageFullError(StorageError):
    kind = "storage-full"


class DestinationError(StorageError):
    kind = "destination"


class TransportError(DragonflyError, ConnectionError):
    kind = "transport"


class ProtocolError(TransportError):
    kind = "protocol"


class LocalProtocolError(ProtocolError):
    """This side was about to say what the protocol does not allow here."""

    kind = "local-protocol"


class RemoteProtocolError(ProtocolError):
    """The other side said what the protocol does not allow here."""

    kind = "remote-protocol"


class GrantError(TransportError):
    kind = "grant"


class StalledError(TransportError, TimeoutError):
    kind = "stalled"


class ClusterError(DragonflyError, RuntimeError):
    kind = "cluster"


class NotRunningError(ClusterError):
    kind = "not-running"


class HostIdTakenError(ClusterError):
    """Another live peer has this one's host id: one store is a copy of the other."""

    kind = "host-id-taken"


class NodeLostError(ClusterError):
    kind = "node-lost"


class _OfDistribution:
    details: dict[str, Any]

    @property
    def distribution(self) -> Any:
        """The `Distribution` with every node's outcome, where one is known."""
        return self.details.get("distribution")


class DistributionFailedError(_OfDistribution, DragonflyError):
    """Some node did not get its copy. `distribution` holds every node's outcome."""

    kind = "distribution-failed"


class VaultError(DragonflyError, RuntimeError):
    """The key is missing, malformed, or another one than the secrets were sealed with."""

    kind = "vault"


class CancelledByUserError(_OfDistribution, DragonflyError):
    """Somebody stopped it. What nodes had by then is in `distribution`."""

    kind = "cancelled"


class DeadlineError(_OfDistribution, DragonflyError, TimeoutError):
    kind = "deadline"


def _tree(cls: type[DragonflyError]) -> dict[str, type[DragonflyError]]:
    found = {cls.kind: cls}
    for child in cls.__subclasses__():
        found |= _tree(child)
    return found


BY_KIND: dict[str, type[DragonflyError]] = _tree(DragonflyError)
"""Every error class by its stable `kind`, as it appears in reports and in JSON."""


def from_report(kind: str, message: str) -> DragonflyError:
    """The error that another process reported as (kind, message)."""
    return BY_KIND.get(kind, DragonflyError)(message)
