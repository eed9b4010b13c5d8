"""The bytes of a release: examples of every frame and message, and the file that keeps them.

`python -m tests.golden` adds what the file lacks. It changes nothing that stands there: that is what other nodes send.
"""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any, get_args

import msgspec

from dragonfly_ray import messages as m
from dragonfly_ray.grants import Handshake
from dragonfly_ray.transport import protocol as p
from dragonfly_ray.transport.negotiation import Capabilities

FILE = Path(__file__).parent / "golden" / "0.2.0.hex"
"""Lines of a name and the bytes in hexadecimal."""
_DIGEST = bytes(range(32))
_PROOF = bytes(range(64))
_SPOKEN = Capabilities(4, 3, 1)
FRAMES: dict[str, p.Frame] = {
    "Challenge": p.Challenge(_DIGEST, _SPOKEN),
    "Hello": p.Hello("task", "host", b"grant", _DIGEST, _PROOF, _SPOKEN),
    "Accepted": p.Accepted(_PROOF),
    "Welcome": p.Welcome(b"\x05", ((0, _DIGEST), (2, _DIGEST)), 1),
    "Digests": p.Digests(((3, _DIGEST),)),
    "Refused": p.Refused("banned for this task", p.Refusal.BANNED),
    "Request": p.Request(258, 3),
    "Cancel": p.Cancel(258, 3),
    "Have": p.Have(((1, _DIGEST),)),
    "Corrupt": p.Corrupt(258),
    "ManifestRequest": p.ManifestRequest(2**40 + 1, 772),
    "ManifestData": p.ManifestData(2**40 + 1, b"page"),
    "DataHeader": p.DataHeader(258, 772, _DIGEST),
    "DataHeader encoding": p.DataHeader(258, 772, _DIGEST, p.Encoding.IDENTITY),
    "Busy": p.Busy(258, 3),
    "Missing": p.Missing(258),
    "Ping": p.Ping(),
    "Pong": p.Pong(),
    "Unsupported": p.Unsupported(200),
}
HANDSHAKE = Handshake("task", "child", "parent", _DIGEST, _DIGEST[::-1], (4, 3, 1), (3, 3, 0))


def examples() -> dict[str, m.Message]:
    """Of every message one with all fields, and one with those alone that it must have."""
    found: dict[str, m.Message] = {}
    for cls in get_args(m.Message):
        fields = msgspec.structs.fields(cls)
        found[f"{cls.__name__} full"] = cls(**{f.name: _value(f.type, f.name) for f in fields})
        found[f"{cls.__name__} least"] = cls(**{f.name: _value(f.type, f.name) for f in fields if f.required})
    return found


def _value(kind: Any, name: str) -> Any:
    return _of(msgspec.inspect.type_info(kind), name)


def _of(info: Any, name: str) -> Any:
    """A value that no default is."""
    match info:
        case msgspec.inspect.UnionType():
            return _of(next(t for t in info.types if not isinstance(t, msgspec.inspect.NoneType)), name)
        case msgspec.inspect.StructType() | msgspec.inspect.DataclassType():
            return info.cls(**{f.name: _of(f.type, f.name) for f in info.fields})
        case msgspec.inspect.VarTupleType() | msgspec.inspect.ListType():
            return (_of(info.item_type, name),)
        case msgspec.inspect.TupleType():
            return tuple(_of(each, name) for each in info.item_types)
        case msgspec.inspect.DictType():
            return {_of(info.key_type, name): _of(info.value_type, name)}
        case msgspec.inspect.LiteralType():
            return info.values[-1]
        case (
            msgspec.inspect.StrType()
            | msgspec.inspect.AnyType()
            | msgspec.inspect.CustomType(cls=builtins.object)
        ):
            return f"a {name}"
        case msgspec.inspect.BytesType():
            return f"b {name}".encode()
        case msgspec.inspect.IntType():
            return 1000 + len(name)
        case msgspec.inspect.FloatType():
            return 0.5 + len(name)
        case msgspec.inspect.BoolType():
            return True
        case _:
            raise TypeError(f"no example of a {info}")


def lines() -> dict[str, bytes]:
    """What the file should have, as this build has it."""
    found = {f"frame {name}": p.encode(frame) for name, frame in FRAMES.items()}
    found["handshake child"] = HANDSHAKE._data("child")
    found["handshake parent"] = HANDSHAKE._data("parent")
    return found | {f"message {name}": m.encode(message) for name, message in examples().items()}


def kept() -> dict[str, bytes]:
    found = {}
    for line in FILE.read_text().splitlines() if FILE.exists() else ():
        name, _, data = line.rpartition(" ")
        found[name] = bytes.fromhex(data)
    return found


def main() -> None:
    FILE.parent.mkdir(exist_ok=True)
    known = kept()
    with FILE.open("a") as file:
        for name, data in lines().items():
            if name not in known:
                file.write(f"{name} {data.hex()}\n")


if __name__ == "__main__":
    main()
