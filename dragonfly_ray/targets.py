"""Which nodes are meant: selectors, resolved against the cluster's members before anything starts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dragonfly_ray.errors import InvalidRequestError, UnknownNodesError
from dragonfly_ray.names import inside

Selector = str | int | Mapping[str, str] | Sequence["str | int | Mapping[str, str]"]
"""`"all"`, `"seeds"`, a count, a share (`"10%"`), a node id (or the start of one), an IP or a name, a
label selector, or a list of these."""

SHORTEST_PREFIX = 8
MOST_SHOWN = 5
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_IN = re.compile(r"(!?)in\((.*)\)")
_PLACEHOLDER = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True)
class Member:
    """One node of the cluster that has, or shall have, a peer."""

    node_id: str
    address: str
    name: str = ""
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    alive: bool = True
    seed: bool = False
    cordoned: bool = False
    """Chosen only where it is named: it is cordoned, or draining."""

    def answers_to(self, text: str) -> bool:
        if text in (self.node_id, self.address, self.name, self.hostname):
            return True
        return len(text) >= SHORTEST_PREFIX and self.node_id.startswith(text)


def select(nodes: Selector, members: Sequence[Member]) -> list[Member]:
    """The members that `nodes` means, each once, in the order of the cluster.

    Cordoned nodes are meant by their own id, address or name only, not by "all", a count, a share, a
    label or "seeds".

    Raises `UnknownNodesError` naming what is unknown or dead, or if nothing is left.
    """
    alive = [m for m in members if m.alive]
    if not alive:
        raise UnknownNodesError("no live node in the cluster")
    free = [m for m in alive if not m.cordoned]
    parts = [nodes] if isinstance(nodes, (str, int, Mapping)) else list(nodes)
    if not parts:
        raise UnknownNodesError("nodes: the list is empty")
    chosen: set[str] = set()
    unknown: list[str] = []
    for part in parts:
        found = _one(part, members, alive, free)
        if not found:
            unknown.append(_shown(part, members, free))
        chosen.update(m.node_id for m in found)
    if unknown:
        known = list(dict.fromkeys(m.address for m in alive))
        more = f" and {len(known) - MOST_SHOWN} more" if len(known) > MOST_SHOWN else ""
        raise UnknownNodesError(
            f"no such nodes: {', '.join(unknown)}; alive: {', '.join(known[:MOST_SHOWN])}{more}"
        )
    return [m for m in alive if m.node_id in chosen]


def _one(
    part: object, members: Sequence[Member], alive: Sequence[Member], free: Sequence[Member]
) -> list[Member]:
    match part:
        case bool():
            raise InvalidRequestError(f"nodes: {part!r} is not a valid selector")
        case int():
            if part < 1:
                raise InvalidRequestError(f"nodes: {part}: a node count must be at least 1")
            if part > len(free):
                raise UnknownNodesError(f"nodes: {part} requested, only {len(free)} are {_kind(alive, free)}")
            return _spread(free)[:part]
        case str():
            return _text(part, alive, free)
        case Mapping():
            return [
                m for m in free if all(_label_fits(m.labels.get(str(k)), str(v)) for k, v in part.items())
            ]
        case _:
            raise InvalidRequestError(f"nodes: {type(part).__name__} is not a valid selector")


def _kind(alive: Sequence[Member], free: Sequence[Member]) -> str:
    return "alive" if len(alive) == len(free) else f"alive and not cordoned (of {len(alive)})"


def _text(text: str, alive: Sequence[Member], free: Sequence[Member]) -> list[Member]:
    if text == "all":
        return list(free)
    if text == "seeds":
        return [m for m in free if m.seed]
    share = _SHARE.fullmatch(text)
    if share:
        percent = float(share[1])
        if not 0 < percent <= 100:
            raise InvalidRequestError(f"nodes: {text}: a percentage must be above 0 and at most 100 %")
        return _spread(free)[: max(1, round(len(free) * percent / 100))]
    exact = [m for m in alive if text in (m.node_id, m.address, m.name)]
    found = exact or [m for m in alive if m.answers_to(text)]
    if len(found) > 1 and not exact and all(m.node_id.startswith(text) for m in found):
        raise UnknownNodesError(f"nodes: {text!r} matches {len(found)} node ids; use a longer prefix")
    return found


def _spread(alive: Sequence[Member]) -> list[Member]:
    """An order that stays the same while the cluster does."""
    return sorted(alive, key=lambda m: hashlib.sha256(m.node_id.encode()).digest())


def _label_fits(value: str | None, wanted: str) -> bool:
    """Ray's operators: `v`, `!v`, `in(a,b)`, `!in(a,b)`."""
    match = _IN.fullmatch(wanted)
    if match:
        among = [each.strip() for each in match[2].split(",")]
        return (value in among) != bool(match[1])
    if wanted.startswith("!"):
        return value != wanted[1:]
    return value == wanted


def _shown(part: object, members: Sequence[Member], free: Sequence[Member]) -> str:
    if not free and (part == "all" or _SHARE.fullmatch(str(part))):
        return f"{part} (all live nodes are cordoned)"
    if isinstance(part, str) and any(m.answers_to(part) for m in members):
        return f"{part} (dead)"
    if part == "seeds":
        return "seeds (no node is a seed)"
    return str(part) if isinstance(part, str) else repr(part)


def check_dest(dest: str | os.PathLike[str], roots: Sequence[str] | None = None) -> str:
    """`dest` as text: absolute, without `..`, and with no placeholder but `{name}` and `{node}`.

    `roots`: it must lie below one of them, by its names; None: anywhere. Raises `InvalidRequestError`.
    """
    text = os.fspath(dest)
    if not text.startswith("/") or "\0" in text:
        raise InvalidRequestError(f"dest {text!r}: must be an absolute path on the nodes")
    if ".." in text.split("/"):
        raise InvalidRequestError(f"dest {text!r}: must not contain '..'")
    for placeholder in _PLACEHOLDER.findall(text):
        if placeholder not in ("{name}", "{node}"):
            raise InvalidRequestError(
                f"dest {text!r}: unknown placeholder {placeholder}; use {{name}} or {{node}}"
            )
    if text.strip("/") == "":
        raise InvalidRequestError("dest '/': the root cannot be replaced")
    place = f"{text}name" if text.endswith("/") else text
    if roots is not None and inside(place, roots) is None:
        allowed = os.pathsep.join(roots) or "none"
        raise InvalidRequestError(f"dest {text!r}: is outside the allowed dest roots ({allowed})")
    return text
