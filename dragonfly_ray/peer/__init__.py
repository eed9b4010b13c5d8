"""The peer daemon without Ray: it runs in any process that can give it a store and a way to its scheduler."""
