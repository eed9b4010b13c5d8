"""libtorrent on one host, for the rivals: makes a torrent, seeds it, or fetches it from given peers.

    python -m tests.benchmarks.torrent make FILE.torrent PATH --piece BYTES [--web-seed URL]
    python -m tests.benchmarks.torrent run FILE.torrent FOLDER --address IP [--peer IP …] [--seed]

`run` says `ready`, waits for a line, says `done` when it has everything, and goes on sharing until its
standard input ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import libtorrent as lt

PORT = 6881
SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
    "choking_algorithm": 0,
    "unchoke_slots_limit": 200,
    "unchoke_interval": 1,
    "optimistic_unchoke_interval": 2,
    "connections_limit": 500,
    "connection_speed": 500,
    "torrent_connect_boost": 255,
    "min_reconnect_time": 1,
    "max_out_request_queue": 1500,
    "request_queue_time": 1,
    "send_buffer_watermark": 2 << 20,
    "max_queued_disk_bytes": 64 << 20,
    "tick_interval": 50,
    "alert_mask": 0,
}


def make(torrent: Path, path: Path, piece: int, web_seed: str) -> None:
    made = lt.create_torrent(lt.list_files(str(path)), piece, lt.create_torrent.v1_only)
    if web_seed:
        made.add_url_seed(web_seed)
    lt.set_piece_hashes(made, str(path.parent))
    torrent.write_bytes(lt.bencode(made.generate()))


def run(torrent: Path, folder: Path, address: str, peers: list[str], *, seed: bool) -> None:
    settings: Any = {**SETTINGS, "listen_interfaces": f"{address}:{PORT}"}
    session = lt.session(settings)
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(str(torrent))
    params.save_path = str(folder)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if seed:
        params.flags |= lt.torrent_flags.seed_mode
    handle = session.add_torrent(params) if seed else None
    print("ready", flush=True)
    sys.stdin.readline()
    if handle is None:
        handle = session.add_torrent(params)
        for peer in peers:
            handle.connect_peer((peer, PORT))
    while not handle.status().is_seeding:
        time.sleep(0.01)
    print("done", flush=True)
    sys.stdin.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    orders = parser.add_subparsers(dest="order", required=True)
    made = orders.add_parser("make")
    made.add_argument("torrent", type=Path)
    made.add_argument("path", type=Path)
    made.add_argument("--piece", type=int, required=True)
    made.add_argument("--web-seed", default="")
    ran = orders.add_parser("run")
    ran.add_argument("torrent", type=Path)
    ran.add_argument("folder", type=Path)
    ran.add_argument("--address", required=True)
    ran.add_argument("--peer", action="append", default=[])
    ran.add_argument("--seed", action="store_true")
    options = parser.parse_args()
    if options.order == "make":
        make(options.torrent, options.path, options.piece, options.web_seed)
    else:
        run(options.torrent, options.folder, options.address, options.peer, seed=options.seed)


if __name__ == "__main__":
    main()
