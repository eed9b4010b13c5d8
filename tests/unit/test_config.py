"""Settings: the documented file is the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dragonfly_ray.config import Settings

DEFAULT = Path(__file__).resolve().parents[2] / "configs" / "default.yaml"


def test_the_default_file_holds_every_setting_with_its_default() -> None:
    written = yaml.safe_load(DEFAULT.read_text())
    known = Settings().model_dump(mode="json")
    assert written == known


def test_a_variable_beats_the_file_and_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("origin: {connections: 7, retries: 9}\n")
    monkeypatch.setenv("DRAGONFLY_CONFIG", str(file))
    monkeypatch.setenv("DRAGONFLY_ORIGIN__CONNECTIONS", "5")
    found = Settings()
    assert (found.origin.connections, found.origin.retries) == (5, 9)


def test_an_unknown_setting_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("origin: {conections: 7}\n")
    monkeypatch.setenv("DRAGONFLY_CONFIG", str(file))
    with pytest.raises(ValueError, match="conections"):
        Settings()
