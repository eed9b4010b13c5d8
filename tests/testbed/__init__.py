"""Several hosts on one machine: network namespaces on a bridge, a Ray node in each, an origin with its own link."""
