"""Which host a store belongs to: an id that outlives processes and reboots, but not its copies on other machines."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

import msgspec

from dragonfly_ray.storage.dest_identity import boot_id as this_boot

_MACHINE_ID = Path("/etc/machine-id")
_BOARD = Path("/sys/class/dmi/id/product_uuid")
_NETWORK = Path("/sys/class/net")


class HostIdentity(msgspec.Struct, frozen=True):
    """An id, and where it was given."""

    id: str
    boot: str
    """Of the kernel's run."""
    machine: str
    """Empty where nothing tells one machine from another."""
    folder: int
    """Number of the store's folder in its file system: a copy on the same machine has another one."""

    def holds(self, boot: str, machine: str, folder: int) -> bool:
        """Whether this is still the place. After a reboot the machine must be known for the same."""
        same = bool(boot) and boot == self.boot
        return folder == self.folder and (same or (bool(machine) and machine == self.machine))


def machine_identity() -> str:
    """A digest of what tells this machine from one that was cloned from the same image."""
    parts = [_text(_MACHINE_ID), _text(_BOARD)]
    with contextlib.suppress(OSError):
        cards = [card for card in _NETWORK.iterdir() if (card / "device").exists()]
        parts += sorted(_text(card / "address") for card in cards)
    # The image's own id alone tells nothing: its clones have it, too.
    return hashlib.sha256("\0".join(parts).encode()).hexdigest() if any(parts[1:]) else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def host_identity(file: Path, boot: str | None = None) -> str:
    """The id kept in `file`, or a new one where it was given to another machine or to another folder.

    Raises `OSError`.
    """
    boot = this_boot() if boot is None else boot
    machine, folder = machine_identity(), os.stat(file.parent).st_ino
    try:
        known = msgspec.json.decode(file.read_bytes(), type=HostIdentity)
        found = known.id if known.holds(boot, machine, folder) else ""
    except (FileNotFoundError, msgspec.DecodeError):
        known, found = None, ""
    now = HostIdentity(found or secrets.token_hex(16), boot, machine, folder)
    if now != known:
        draft = file.with_name(f"{file.name}.new")
        draft.write_bytes(msgspec.json.encode(now))
        os.replace(draft, file)
    return now.id
