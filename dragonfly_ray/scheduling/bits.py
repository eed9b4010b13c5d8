"""The former name of `dragonfly_ray.bitset`."""

from dragonfly_ray.bitset import *
