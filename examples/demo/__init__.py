"""`make run`: a local cluster of four nodes, a real web server, one big file and one real directory."""

from __future__ import annotations

PREFIX = "dragonfly-demo-"
"""What the demo's folders in /tmp are called."""
