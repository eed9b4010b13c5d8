"""The piece store of one node: data files, journal, outputs, eviction."""
