"""The download engine: what one host decides while it fetches a task. No Ray, sockets, clock or threads."""
