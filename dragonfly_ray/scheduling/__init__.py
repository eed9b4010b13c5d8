"""Decisions without I/O: leases, neighbours, piece selection. No Ray, no sockets, no clocks, no threads."""
