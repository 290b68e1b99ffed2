"""The values of options: what is wrong is refused before anything starts, with the flag, the value and what is allowed.

argparse names the flag; these say the rest, each as the configuration file says it of its key (`config_file.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T", int, float)

SHORTEST, LONGEST = 0.05, 3600.0
"""Seconds that a wait may last."""
SECONDS = f"a number of seconds, from {SHORTEST:g} to {LONGEST:g}"

PATH_BYTES = 107
"""Of a Unix socket: sockaddr_un holds 108 with the closing NUL (unix(7))."""


def seconds(text: str) -> float:
    """A time that a request or a peer has."""
    return _number(text, float, SHORTEST, LONGEST, SECONDS)


def pause(text: str) -> float:
    """A time between two looks, which may be none."""
    return _number(text, float, 0.0, LONGEST, f"a number of seconds, from 0 to {LONGEST:g}")


def count(most: int) -> Callable[[str], int]:
    """A number of things, from 1."""
    return lambda text: _number(text, int, 1, most, f"a number from 1 to {most}")


def port(text: str) -> int:
    """A TCP port, 0 for a free one."""
    return _number(text, int, 0, 65535, "a TCP port, from 1 to 65535, or 0 for a free one")


def port_or_none(text: str) -> int:
    """A TCP port, 0 for a free one, -1 for none."""
    return _number(text, int, -1, 65535, "a TCP port, from 1 to 65535, 0 for a free one, or -1 for none")


def socket_path(text: str) -> Path:
    """Where a Unix socket can be."""
    length = len(text.encode(errors="surrogateescape"))
    if not 1 <= length <= PATH_BYTES:
        raise argparse.ArgumentTypeError(
            f"it is {text!r} and has {length} bytes, but must be a path of 1 to {PATH_BYTES} bytes"
        )
    return Path(text)


def _number(text: str, read: Callable[[str], T], least: float, most: float, right: str) -> T:
    try:
        value = read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it is {text!r} and must be {right}") from error
    if not least <= value <= most:  # so for "nan" too
        raise argparse.ArgumentTypeError(f"it is {text!r} and must be {right}")
    return value
