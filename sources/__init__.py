"""Origins: any URL that fsspec can open, resolved to a manifest and read in ranges."""

if __name__ != "dragonfly_ray.sources":
    raise ImportError("import dragonfly_ray.sources: a second copy under another name would break pickling")
