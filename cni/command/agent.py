"""`orbweaver agent`: serve CNI requests on this node until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from actors.errors import InvalidObject
from actors.store.sqlite import SQLiteStore
from cni import shim
from cni.agent import METRICS_PORT, SOCKET, Agent, AgentOptions
from cni.command.data_file import add_data_option
from cni.command.settings_options import add_settings_options, read_settings
from metrics.logs import LEVELS, set_up

log = logging.getLogger("orbweaver.agent")

FATAL = 70
"""Exit status after too many crashes (EX_SOFTWARE in sysexits.h)."""

SWITCH_INTERVAL = 0.0005


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser("agent", help="serve CNI requests on this node", description=__doc__)
    parser.add_argument(
        "--standalone",
        action="store_true",
        help="run every actor here, on the embedded store (the only mode so far)",
    )
    add_data_option(parser)
    parser.add_argument(
        "--socket", type=Path, default=SOCKET, help="Unix socket for the CNI plugin (%(default)s)"
    )
    parser.add_argument("--node", default=socket.gethostname(), help="this node's name (%(default)s)")
    parser.add_argument(
        "--metrics-host", default="127.0.0.1", help="address for /metrics and health (%(default)s)"
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=METRICS_PORT,
        help="its port; 0: a free one, -1: none (%(default)s)",
    )
    parser.add_argument(
        "--timeout", type=float, default=20.0, help="seconds to answer a CNI request in (%(default)s)"
    )
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="(%(default)s)")
    parser.add_argument(
        "--install-plugin",
        type=Path,
        metavar="DIRECTORY",
        help="put the CNI plugin there first, e.g. /opt/cni/bin",
    )
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Serve; 0 after a signal, 70 when an actor crashed too often."""
    if not chosen.standalone:
        raise InvalidObject(
            "`orbweaver agent` needs --standalone: this version keeps its objects in the embedded store"
        )
    set_up(chosen.log_level)
    # Waiting threads ask for the interpreter after this many seconds, not after CPython's 5 ms: an ADD passes
    # through five threads, and under load each pass would wait that long.
    sys.setswitchinterval(SWITCH_INTERVAL)
    options = AgentOptions(
        node=chosen.node,
        cni_socket=chosen.socket,
        metrics_host=chosen.metrics_host,
        metrics_port=None if chosen.metrics_port < 0 else chosen.metrics_port,
        timeout=chosen.timeout,
        settings=read_settings(chosen),
    )
    if chosen.install_plugin is not None:
        shim.install(chosen.install_plugin, names=("spiderpool", "coordinator"))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    store = SQLiteStore(chosen.data)
    try:
        agent = Agent(store, options)
        agent.on_fatal(ended.set)
        try:
            agent.start()
            gc.freeze()  # what start-up made lives as long as the process; the collector need not look at it again
            ended.wait()
        finally:
            agent.stop()
    finally:
        store.close()
    if agent.fatal is not None:
        log.critical(
            "ending, so that whoever started this process starts it anew", extra={"why": agent.fatal}
        )
        return FATAL
    return 0
