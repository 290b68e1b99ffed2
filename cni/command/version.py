"""`orbweaver version`: what is installed, and which CNI versions it speaks."""

from __future__ import annotations

import argparse
from typing import Any

from cni.release import version
from cni.server.protocol import VERSIONS


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser("version", help="print the version", description=__doc__)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Print the version."""
    print(f"orbweaver {version()} (CNI {', '.join(VERSIONS)})")
    return 0
