"""Small programs to copy from, each of which a test runs, and the demo of `make run`."""
