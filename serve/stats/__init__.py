"""What moved, from where, and how things stand."""
