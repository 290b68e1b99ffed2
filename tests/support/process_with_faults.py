"""The command line in a process whose store fails, whose clock jumps, or who speaks otherwise, as a test tells it.

    python process_with_faults.py --store "*/SpiderIPBlock/3:kill-after" -- agent --standalone --data … --socket …
    python process_with_faults.py --clock FILE -- controller --kubeconfig …
    python process_with_faults.py --protocol 2 -- controller --kubeconfig …

The store's plan is `faulty_store.scripted`'s, and applies to the embedded store; the API server fails by a proxy. The
wall clock is ahead by the seconds that `Clock.jump` wrote to FILE; the monotonic clock, as on a real machine whose time
is set, goes on as it did.
"""

from __future__ import annotations

import argparse
import importlib
import mmap
import struct
import sys
import time
from pathlib import Path

# At the end: where Orbweaver is installed, its packages must come from there and not from the working tree.
sys.path.append(str(Path(__file__).resolve().parents[2]))


def shift_clock(file: Path) -> None:
    """Have `time.time` follow the file. Before anything of ours is imported: defaults of arguments are bound then."""
    with file.open("rb") as opened:
        shared = mmap.mmap(opened.fileno(), 8, access=mmap.ACCESS_READ)
    real = time.time
    vars(time)["time"] = lambda: real() + struct.unpack("d", shared[:8])[0]


def speak_only(version: int) -> None:
    """Have the process speak one version of the protocol between processes, as one of much later would."""
    from actors.runtime import wire

    vars(wire)["hello"].__defaults__ = (wire.FRAME_LIMIT, version, version)
    wire.Incoming.__init__.__defaults__ = (wire.FRAME_LIMIT, version, version)


def rename_value(name: str) -> None:
    """Send the values of this class under a name that nobody knows, as of a class that only a newer version has."""
    from actors.runtime import wire

    importlib.import_module("cni.process.agent")  # with all that it sends
    shape = wire._shapes[f"{name}OfLater"] = wire._shapes[name]
    wire._names[shape.cls] = f"{name}OfLater"


def fail_store(text: str) -> None:
    """Put a `FaultyStore` around the embedded store."""
    from actors.store.sqlite import store as sqlite
    from tests.support.faulty_store import FaultyStore, scripted

    plan, real = scripted(text), sqlite.SQLiteStore
    vars(sqlite)["SQLiteStore"] = lambda path, **options: FaultyStore(real(path, **options), plan)


def run(arguments: list[str]) -> int:
    """Serve until a signal, or until the plan ends the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", metavar="PLAN")
    parser.add_argument("--clock", metavar="FILE", type=Path)
    parser.add_argument("--protocol", metavar="VERSION", type=int)
    parser.add_argument("--renamed", metavar="CLASS")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args(arguments)
    if chosen.clock is not None:
        shift_clock(chosen.clock)
    if chosen.store is not None:
        fail_store(chosen.store)
    if chosen.protocol is not None:
        speak_only(chosen.protocol)
    if chosen.renamed is not None:
        rename_value(chosen.renamed)
    from cni.command import main

    return main.main(chosen.command)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
