"""Running a process until it is asked to end: the same for `agent` and `controller`."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import resource
import signal
import threading
from typing import Any, Protocol

from actors.errors import AskedToEnd
from actors.store.contract import Store
from cni.command import option_values
from metrics.logs import LEVELS

_YOUNG = 10_000
"""Objects that are made before the collector of cycles looks at them. With the default of 700 it took 3 % of an agent's CPU
under load (228 looks at the youngest in 1,000 ADDs and DELs)."""

log = logging.getLogger("orbweaver.process")

FATAL = 70
"""Exit status after too many crashes (EX_SOFTWARE in sysexits.h)."""


def raise_descriptor_limit() -> None:
    """Let this process open as many files as it may: the usual soft limit of 1,024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit of open files stays", extra={"limit": soft, "error": str(error)})


class Serving(Protocol):
    """What is started, waited for and stopped."""

    fatal: str | None

    def start(self) -> None: ...

    def end(self) -> None: ...

    def stop(self) -> None: ...

    def on_fatal(self, callback: Any) -> None: ...


def add_process_options(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the options for metrics and logs; `port` is where HTTP is served by default."""
    parser.add_argument(
        "--metrics-host",
        default="127.0.0.1",
        help="address for /metrics and health; empty for all that the host has (%(default)s)",
    )
    parser.add_argument(
        "--metrics-port",
        type=option_values.port_or_none,
        default=port,
        help="its port; 0: a free one, -1: none (%(default)s)",
    )
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="(%(default)s)")


def metrics_port(chosen: argparse.Namespace) -> int | None:
    """The port that was chosen, None for no HTTP."""
    return None if chosen.metrics_port < 0 else int(chosen.metrics_port)


def serve(process: Serving, store: Store) -> int:
    """Start, wait for SIGTERM or SIGINT, stop, close the store; 0, or 70 when an actor crashed too often. A start that is
    not done yet is given up.

    SIGUSR1 writes to standard error what every thread is doing.
    """
    faulthandler.register(signal.SIGUSR1)
    raise_descriptor_limit()
    # A pipe, not a threading.Event: the kernel may deliver the signal to another thread, and then nothing wakes the main
    # thread, in which alone Python runs handlers. The wake-up descriptor is written in whichever thread it arrives.
    ended, end = os.pipe()
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    process.on_fatal(lambda: os.write(end, b"!"))
    over = threading.Event()

    def await_end() -> None:
        os.read(ended, 1)
        process.end()
        over.set()

    threading.Thread(target=await_end, name="signals", daemon=True).start()
    try:
        try:
            process.start()
            gc.set_threshold(_YOUNG)
            gc.freeze()  # what start-up made lives as long as the process; the collector need not look at it again
            over.wait()
        except AskedToEnd as error:
            log.info("ending", extra={"why": str(error)})
        finally:
            process.stop()
    finally:
        store.close()
    if process.fatal is not None:
        log.critical(
            "ending, so that whoever started this process starts it anew", extra={"why": process.fatal}
        )
        return FATAL
    return 0
