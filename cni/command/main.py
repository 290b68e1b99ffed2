"""`orbweaver`: the entry point. Every command is one module of this package with `add_parser` and `run`.

What must always hold: a refusal is one message on standard error that says what to do, and exit status 1; wrong
usage is exit status 2; a traceback is a bug.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from actors.errors import OrbweaverError
from actors.resources.json_text import showable
from cni.command.printable import printable
from metrics.log_fields import own_fields

COMMANDS = {
    "demo": "see the main job done, in a sandbox",
    "agent": "serve CNI requests on this node",
    "controller": "allocate and look after pools, for a whole cluster",
    "apply": "create or change objects from YAML",
    "get": "list objects",
    "delete": "delete objects",
    "explain": "which pool a pod would get, and why not the others",
    "ip": "who has an address",
    "certificate": "replace the certificate that agents know the leader by",
    "check": "prove that no address is recorded twice or leaked, and every view is right",
    "takeover": "put Orbweaver in the place of another IPAM, or back",
    "uninstall": "take all of it off a cluster, or off this node",
    "version": "print the version",
}


class LogLines(logging.Formatter):
    """What a short command logs, as lines that its user can read:
    `orbweaver: a pool cannot be used (pool: blue, error: …)`: the message, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = ", ".join(f"{name}: {value}" for name, value in own_fields(record).items())
        line = f"orbweaver: {record.getMessage()}" + (f" ({fields})" if fields else "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def parser(wanted: str) -> argparse.ArgumentParser:
    """The command line. If `wanted` is a command, that one alone: with the modules of all of them `get` would spend three
    quarters of its time on what only the agent needs, and what is known of the others is for the list of commands."""
    root = argparse.ArgumentParser(
        prog="orbweaver", description="IP address management for Kubernetes pods on underlay networks."
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if wanted in COMMANDS:
        importlib.import_module(f"cni.command.{wanted}").add_parser(commands)
    else:
        for name, purpose in COMMANDS.items():
            commands.add_parser(name, help=purpose)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    _set_up_log()
    with redirect_stdout(printable(sys.stdout)), redirect_stderr(printable(sys.stderr)):
        return _run(given)


def _set_up_log() -> None:
    """For commands that set up no log of their own: logging's last resort writes warnings and errors, and would leave out
    everything but the message."""
    assert logging.lastResort is not None
    logging.lastResort.setFormatter(LogLines())


def _run(given: Sequence[str]) -> int:
    chosen = parser(given[0] if given else "").parse_args(given)
    try:
        status: int = chosen.run(chosen)
        return status
    except OrbweaverError as error:
        print(f"orbweaver: {error.message}", file=sys.stderr)
        for line in error.details:
            print(f"  {showable(line)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, as in `orbweaver get sp | head`; nothing is left to say
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
