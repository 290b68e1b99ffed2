"""The option that names the embedded store's file, the same in every command."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cni.agent import DATABASE

VARIABLE = "ORBWEAVER_DATA"


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add `--data FILE`."""
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get(VARIABLE, DATABASE)),
        metavar="FILE",
        help=f"the embedded store's file (%(default)s; or set {VARIABLE})",
    )
