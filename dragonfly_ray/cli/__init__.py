"""The `dragonfly` command."""
