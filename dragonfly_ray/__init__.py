"""Put one file or one directory on every node of a Ray cluster, peer to peer, verified."""
