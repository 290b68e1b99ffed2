"""`orbweaver agent` on a store that fails as told: a test starts this file with a plan in front.

    python agent_with_faults.py "*/SpiderIPBlock/3:kill-after" --standalone --data … --socket …

The plan is `faulty_store.scripted`'s.
"""

from __future__ import annotations

import sys
from pathlib import Path

# At the end: where Orbweaver is installed, its packages must come from there and not from the working tree.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from actors.store import sqlite
from cni.command import main
from tests.faults.faulty_store import FaultyStore, scripted


def run(arguments: list[str]) -> int:
    """Serve until a signal, or until the plan ends the process."""
    plan = scripted(arguments[0])
    real = sqlite.SQLiteStore
    vars(sqlite)["SQLiteStore"] = lambda path: FaultyStore(real(path), plan)
    return main.main(["agent", *arguments[1:]])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
