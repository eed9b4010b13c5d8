"""Distributions and preheats: made, carried out, watched, told."""

from dragonfly_ray.serve.jobs.service import Jobs

__all__ = ["Jobs"]
