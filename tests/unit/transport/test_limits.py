"""Rates, and keys."""

from __future__ import annotations

from pathlib import Path

from dragonfly_ray.grants import SigningKey
from dragonfly_ray.transport.limiter import RateLimiter


def test_the_limiter_keeps_to_its_rate() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    limiter = RateLimiter(1_000_000, clock=lambda: now[0], sleep=sleep)
    for _ in range(100):
        limiter.take(100_000)
    assert 9.0 < now[0] <= 10.0


def test_a_key_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k"
    key = SigningKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load_or_create(path).public_bytes() == key.public_bytes()
    assert key.private_bytes().hex() not in repr(key)
