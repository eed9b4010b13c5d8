"""`python -m dragonfly_ray.cli`."""

from dragonfly_ray.cli import main

main()
