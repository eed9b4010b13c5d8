"""Ray shells round the plain classes of the package: controller, scheduler, peer."""

if __name__ != "dragonfly_ray.actors":
    raise ImportError("import dragonfly_ray.actors: a second copy under another name would break pickling")
