"""Events, delivered to other people's servers: signed, at least once, for as long as it takes."""
