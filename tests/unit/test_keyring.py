"""One signing key replaces another: what peers take, and when schedulers sign with it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dragonfly_ray import api
from dragonfly_ray.actors import controller
from dragonfly_ray.cli import backend
from dragonfly_ray.cli.app import app
from dragonfly_ray.config import Settings, StorageSettings
from dragonfly_ray.errors import GrantError, InvalidRequestError, StorageError
from dragonfly_ray.grants import SKEW, GrantIssuer, GrantVerifier, SigningKey
from dragonfly_ray.keyring import LEARNT, WAIT_AT_MOST, KeyRing

TTL, DAY = 900.0, 24 * 3600.0


def a_ring() -> KeyRing:
    return KeyRing(SigningKey.generate().private_bytes(), since=0.0)


def public(private: bytes) -> bytes:
    return SigningKey.from_private_bytes(private).public_bytes()


def advanced(ring: KeyRing, now: float, *, told: bool = True) -> KeyRing:
    return ring.advanced(now, ttl=TTL, max_age=30 * DAY, told=told)


def test_a_key_signs_only_when_every_peer_takes_it_and_is_taken_until_its_grants_have_ended() -> None:
    first = a_ring()
    assert advanced(first, 29 * DAY) == first
    announced = advanced(first, 30 * DAY, told=True)
    assert announced.active == first.active
    assert len(announced.public_keys()) == 2
    assert advanced(announced, 30 * DAY + 1, told=False) == announced, "some peer does not take it yet"
    second = advanced(announced, 30 * DAY + 2, told=True)
    assert second.active == announced.following
    assert set(second.public_keys()) == {public(first.active), public(second.active)}
    # A scheduler that learns of it last has signed with the first until then.
    last = 30 * DAY + 2 + LEARNT + TTL + SKEW
    assert len(advanced(second, last - 1).public_keys()) == 2
    assert advanced(second, last).public_keys() == [public(second.active)]


def test_a_peer_that_is_not_heard_of_holds_the_next_key_up_for_a_while_only() -> None:
    ring = a_ring().rotated(100.0)
    assert ring.rotated(200.0) == ring, "one at a time"
    assert advanced(ring, 100.0 + WAIT_AT_MOST - 1, told=False) == ring
    assert advanced(ring, 100.0 + WAIT_AT_MOST, told=False).active == ring.following


def test_no_grant_is_refused_while_keys_change() -> None:
    """Peers know what the ring says before a scheduler does, which learns of it late."""
    ring, now = a_ring(), 0.0
    verifier = GrantVerifier(ring.public_keys())
    old = GrantIssuer(SigningKey.from_private_bytes(ring.active)).issue("t", "h", bytes(32), "", TTL)
    ring = ring.rotated(now)
    verifier.trust(ring.public_keys())
    ring = advanced(ring, now)
    verifier.trust(ring.public_keys())
    new = GrantIssuer(SigningKey.from_private_bytes(ring.active)).issue("t", "h", bytes(32), "", TTL)
    for grant in (old, new):
        assert verifier.verify(grant, "t", "h") == bytes(32)
    verifier.trust(advanced(ring, now + LEARNT + TTL + SKEW).public_keys())
    assert verifier.verify(new, "t", "h") == bytes(32)
    with pytest.raises(GrantError):
        verifier.verify(old, "t", "h")


def test_keys_never_change_by_age_where_that_is_off() -> None:
    ring = a_ring()
    assert ring.advanced(1e12, ttl=TTL, max_age=0.0, told=True) == ring


def test_a_ring_is_kept_and_begins_with_the_single_key(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "dragonfly.keyring"
    single = SigningKey.load_or_create(path.with_suffix(".key"))
    ring = KeyRing.load_or_create(path)
    assert ring.active == single.private_bytes()
    assert not path.exists()
    ring = ring.rotated(5.0)
    ring.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyRing.load_or_create(path) == ring
    assert sorted(os.listdir(path.parent)) == ["dragonfly.key", "dragonfly.keyring"]
    assert ring.active.hex() not in repr(ring)
    assert repr(ring.active) not in repr(ring)
    path.write_bytes(b"noise")
    with pytest.raises(StorageError, match="not a valid key ring"):
        KeyRing.load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(StorageError):
        KeyRing.load_or_create(path)


def test_the_command_line_rotates_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    class Controller:
        """As a driver sees it."""

        begun = True

        @property
        def rotate_signing_key(self) -> Controller:
            return self

        def remote(self) -> bool:
            return self.begun

    made = Controller()
    monkeypatch.setattr(api, "_running_settings", Settings)
    monkeypatch.setattr(api, "reach", lambda *_: made)
    monkeypatch.setattr(api, "get", lambda reference, *_: reference)
    runner = CliRunner()
    done = runner.invoke(app, ["rotate-keys"])
    assert (done.exit_code, done.stdout) == (
        0,
        "key rotation started: the new key signs once every peer accepts it\n",
    )
    made.begun = False
    done = runner.invoke(app, ["rotate-keys", "--json"])
    assert json.loads(done.stdout) == {"begun": False}
    refused = runner.invoke(app, ["--manager", "http://127.0.0.1:9", "rotate-keys"])
    assert isinstance(refused.exception, InvalidRequestError)
    backend.choose(None, None)


class Peer:
    """As the controller sees it."""

    def __init__(self) -> None:
        self.trusts: list[list[bytes]] = []
        self.trust = self

    def remote(self, keys: list[bytes]) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.trusts.append(keys)
        answer.set_result(None)
        return answer


def test_a_controller_tells_every_peer_before_schedulers_get_the_next_key(tmp_path: Path) -> None:
    async def rotate() -> None:
        made = controller.ControllerActor(Settings(storage=StorageSettings(root=tmp_path)))
        peers: dict[str, Any] = {"n1": Peer(), "n2": Peer()}
        made._peers = peers
        first = await made.signing_key()
        assert await made.rotate_signing_key()
        assert not await made.rotate_signing_key(), "one at a time"
        made._advance_keys()
        assert await made.signing_key() == first
        await made._tell_keys("n1")
        made._advance_keys()
        assert await made.signing_key() == first, "n2 does not take it yet"
        await made._tell_keys("n2")
        made._advance_keys()
        second = await made.signing_key()
        assert second != first
        for peer in peers.values():
            assert set(peer.trusts[-1]) == {public(first), public(second)}
        again = controller.ControllerActor(Settings(storage=StorageSettings(root=tmp_path)))
        assert await again.signing_key() == second, "after its restart, too"
        assert set(again._trusted) == {public(first), public(second)}

    asyncio.run(rotate())
