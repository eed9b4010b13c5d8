"""Which URLs may be fetched on a user's behalf."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """Which URLs may be fetched on a user's behalf. Checked again at every redirect and every connection.

    Hosts are names or `*.suffix` patterns. `networks`: private ranges (CIDR) that may be reached all the same.
    """

    schemes: tuple[str, ...] = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "hdfs")
    allow_hosts: tuple[str, ...] = ()
    """If any, no other host may be asked."""
    deny_hosts: tuple[str, ...] = ()
    allow_private: bool = False
    networks: tuple[str, ...] = ()
