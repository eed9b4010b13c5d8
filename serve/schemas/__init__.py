"""What goes over the wire: sizes in bytes, durations in seconds, times in ISO 8601 with their zone."""
