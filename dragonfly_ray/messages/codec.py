"""Encoding and decoding: the envelope with its version, and the union of all messages."""

from __future__ import annotations

from typing import get_args

import msgspec

from dragonfly_ray.messages.common import LEAST_VERSION, MAX_NAME, VERSION, Unsupported
from dragonfly_ray.messages.peers import (
    Announce,
    Carrying,
    Digests,
    Ended,
    Evicted,
    OriginFailed,
    Proved,
    Report,
    Resolved,
    SamplesCompared,
    Stat,
    StatPending,
    StatReply,
    Throttled,
    Verify,
)
from dragonfly_ray.messages.schedulers import (
    Announced,
    Cancel,
    CompareSamples,
    Deliver,
    Prove,
    ReportReply,
    Resolve,
    TaskUpdate,
    TellDigests,
    Verified,
)
from dragonfly_ray.messages.submitters import DistributionSpec

Message = (
    DistributionSpec | Announce | Report | Throttled | OriginFailed | Verify | Ended | Evicted | Resolve | Resolved | Deliver
    | ReportReply | TaskUpdate | Verified | Cancel | Stat | StatReply | Carrying | Prove | Proved
    | CompareSamples | SamplesCompared | Announced | TellDigests | Digests | StatPending | Unsupported
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
_envelopes = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])
_tags = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_SINCE: dict[type, int] = {Unsupported: 2}
"""Of all others: the least version."""
KNOWN = frozenset(cls.__name__ for cls in get_args(Message))


class UnsupportedMessageError(ValueError):
    """A message that is not known here. `answer`: what whoever sent it shall hear."""

    def __init__(self, answer: Unsupported) -> None:
        super().__init__(
            f"unsupported message {answer.name} of version {answer.version} "
            f"(supported versions: {answer.least}-{answer.most})"
        )
        self.answer = answer


def encode(message: Message) -> bytes:
    return _encoder.encode((_SINCE.get(type(message), LEAST_VERSION), message))


def decode(data: bytes) -> Message:
    """Raises `UnsupportedMessageError` for a message that is not known here, another `ValueError` for what is none."""
    version, body = _envelopes.decode(data)
    try:
        name = msgspec.msgpack.decode(_tags.decode(body).get("type", b""), type=str)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a message: {error}") from None
    if name not in KNOWN or not LEAST_VERSION <= version <= VERSION:
        raise UnsupportedMessageError(Unsupported(name[:MAX_NAME], version))
    return _decoder.decode(body)


def decode_or_refuse(data: bytes) -> Message | Unsupported:
    """As `decode`; of a message that is not known here, what to answer."""
    try:
        return decode(data)
    except UnsupportedMessageError as error:
        return error.answer
