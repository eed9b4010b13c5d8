"""What became of one URL on one node: one record, from a scheduler's state to a manager's tables and a caller's hands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from dragonfly_ray.errors import DragonflyError, from_report
from dragonfly_ray.names import from_os, to_os

NodeState = Literal["waiting", "running", "done", "failed"]
_STATE_LABELS = {"done": "succeeded"}


def state_label(state: str) -> str:
    """A node's state as tables show it; programs read `state` itself."""
    return _STATE_LABELS.get(state, state)


@dataclass(frozen=True, slots=True)
class OnNode:
    """Bytes are those of the content, by where the node got them from."""

    node_id: str
    state: NodeState = "waiting"
    _: KW_ONLY
    size: int = 0
    seconds: float = 0.0
    """From the start of the distribution to the last byte there."""
    bytes_origin: int = 0
    bytes_peers: int = 0
    bytes_object_store: int = 0
    bytes_cache: int = 0
    bytes_audit: int = 0
    """Read at the origin to be compared with what another node had read; in no other number."""
    origin_pieces: str = ""
    """The pieces that this node has read at the origin for everybody, as in `0-63,70`."""
    merged: bool = False
    """Into a folder that was there before."""
    written_by: str = ""
    """Node id of whoever wrote the output: this node shares its file system, and wrote nothing."""


@dataclass(frozen=True, slots=True)
class NodeOutcome(OnNode):
    """In plain values."""

    path: str = ""
    error_kind: str = ""
    error: str = ""

    @property
    def terminal(self) -> bool:
        return self.state in ("done", "failed")

    @property
    def bytes_done(self) -> int:
        if self.state == "done":
            return self.size
        return self.bytes_origin + self.bytes_peers + self.bytes_cache + self.bytes_object_store

    def to_row(self) -> dict[str, Any]:
        """As schedulers tell it, who name the node beside it."""
        return {told: getattr(self, name) for name, told in TOLD}

    @classmethod
    def from_row(cls, node_id: str, row: Mapping[str, Any]) -> NodeOutcome:
        """What is missing there, or None, is as by default; what is not known here is left out."""
        return cls(node_id, **{name: row[told] for name, told in TOLD if row.get(told) is not None})


NAMES = tuple(each.name for each in fields(NodeOutcome))
_RENAMED = {"bytes_object_store": "bytes_small", "error_kind": "kind", "error": "message"}
TOLD = tuple((name, _RENAMED.get(name, name)) for name in NAMES if name != "node_id")
"""Fields, and how schedulers and peers call them."""
_BYTES = ("bytes_origin", "bytes_peers", "bytes_cache", "bytes_small")


def received(row: Mapping[str, Any]) -> int:
    """Bytes that a node has, of a row as schedulers tell it."""
    total: int = sum(row[name] for name in _BYTES)
    return total


_SHARED = tuple(each.name for each in fields(OnNode))


@dataclass(frozen=True)
class Outcome(OnNode):
    """One URL on one node. Bytes are those of the content, by where this node got them from."""

    node: str = field(kw_only=True)
    url: str = field(kw_only=True)
    path: Path | None = None
    error: DragonflyError | None = None

    @property
    def ok(self) -> bool:
        return self.state == "done"

    @classmethod
    def of(cls, found: NodeOutcome, node: str, url: str) -> Outcome:
        """`node`: its name."""
        return cls(
            **{name: getattr(found, name) for name in _SHARED},
            node=node,
            url=url,
            path=Path(to_os(found.path)) if found.path else None,
            error=from_report(found.error_kind, found.error) if found.error_kind else None,
        )

    def to_dict(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        found["path"] = None if self.path is None else from_os(str(self.path))
        found["error"] = None if self.error is None else self.error.to_dict()
        return found | {"ok": self.ok}
