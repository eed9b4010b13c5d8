"""What submitters, peers and schedulers say to each other, in versioned messages, by direction.

They travel as MessagePack, so that an actor call carries them today and a socket can tomorrow.
Unknown fields are ignored by the reader; a field is only ever added, with a default. A message is stamped with the
first version that has it, so that a node that is one version behind reads all that it knows. What it does not know it
answers with `Unsupported`.
"""

from __future__ import annotations

from dragonfly_ray.messages.codec import (
    KNOWN,
    Message,
    UnsupportedMessageError,
    decode,
    decode_or_refuse,
    encode,
)
from dragonfly_ray.messages.common import LEAST_VERSION, MAX_NAME, VERSION, Sample, Unsupported
from dragonfly_ray.messages.peers import (
    UNPROVED,
    Announce,
    Carrying,
    Digests,
    Ended,
    Evicted,
    Held,
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
    SUPERSEDED,
    Announced,
    Cancel,
    CompareSamples,
    Deliver,
    Neighbour,
    Prove,
    ReportReply,
    Resolve,
    TaskUpdate,
    TellDigests,
    Verified,
    WrittenElsewhere,
)
from dragonfly_ray.messages.submitters import DistributionSpec

__all__ = [
    "KNOWN",
    "LEAST_VERSION",
    "MAX_NAME",
    "SUPERSEDED",
    "UNPROVED",
    "VERSION",
    "Announce",
    "Announced",
    "Cancel",
    "Carrying",
    "CompareSamples",
    "Deliver",
    "Digests",
    "DistributionSpec",
    "Ended",
    "Evicted",
    "Held",
    "Message",
    "Neighbour",
    "OriginFailed",
    "Prove",
    "Proved",
    "Report",
    "ReportReply",
    "Resolve",
    "Resolved",
    "Sample",
    "SamplesCompared",
    "Stat",
    "StatPending",
    "StatReply",
    "TaskUpdate",
    "TellDigests",
    "Throttled",
    "Unsupported",
    "UnsupportedMessageError",
    "Verified",
    "Verify",
    "WrittenElsewhere",
    "decode",
    "decode_or_refuse",
    "encode",
]
