"""`orbweaver`: the entry point. Every command is one module of this package with `add_parser` and `run`.

What must always hold: a refusal is one message on standard error that says what to do, and exit status 1; wrong
usage is exit status 2; a traceback is a bug.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from actors.errors import OrbweaverError
from cni.command import agent, apply, delete, demo, explain, get, ip, version

COMMANDS = (demo, agent, apply, get, delete, explain, ip, version)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="orbweaver", description="IP address management for Kubernetes pods on underlay networks."
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    chosen = parser().parse_args(arguments)
    try:
        status: int = chosen.run(chosen)
        return status
    except OrbweaverError as error:
        print(f"orbweaver: {error.message}", file=sys.stderr)
        for line in error.details:
            print(f"  {line}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, as in `orbweaver get sp | head`; nothing is left to say
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
