"""News as they happen: for streams, and for webhooks."""
