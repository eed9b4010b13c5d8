"""The manager's hard state: tables, migrations, sessions. SQLite or PostgreSQL."""

from dragonfly_ray.serve.database.engine import Database

__all__ = ["Database"]
