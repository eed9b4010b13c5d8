"""The cluster as the manager shows and steers it: nodes, tasks, live settings."""

from dragonfly_ray.serve.fleet.fleet import Fleet

__all__ = ["Fleet"]
