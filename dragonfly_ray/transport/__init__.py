"""How pieces travel between peers: the wire protocol, the upload server, download connections."""
