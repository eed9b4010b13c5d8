"""The manager: the REST front of a cluster, on Ray Serve."""

if __name__ != "dragonfly_ray.serve":
    raise ImportError("import dragonfly_ray.serve: a second copy under another name would break pickling")
