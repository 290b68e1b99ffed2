"""`orbweaver controller`: what one process does for the whole cluster, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import signal
import threading
from typing import Any

from actors.errors import InvalidRequest
from actors.store.kubernetes import KubernetesStore
from cni.command.data_file import add_data_option, cluster_access
from cni.command.settings_options import add_settings_options, read_configuration
from cni.controller import METRICS_PORT, Controller, ControllerOptions
from metrics.logs import LEVELS, set_up


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser("controller", help="look after a cluster's pools", description=__doc__)
    add_data_option(parser)
    parser.add_argument(
        "--metrics-host", default="127.0.0.1", help="address for /metrics and health (%(default)s)"
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=METRICS_PORT,
        help="its port; 0: a free one, -1: none (%(default)s)",
    )
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="(%(default)s)")
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Work until a signal comes. Raises `InvalidRequest` where there is no cluster."""
    set_up(chosen.log_level)
    read_configuration(chosen)  # a mistake in it should show here too, before it shows on every node
    access = None if chosen.data else cluster_access(chosen)
    if access is None:
        raise InvalidRequest(
            "the controller needs a cluster: run it in a pod with a service account, or name a --kubeconfig;"
            " without Kubernetes `orbweaver agent --standalone` does its work too"
        )
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    store = KubernetesStore(access)
    try:
        port = None if chosen.metrics_port < 0 else chosen.metrics_port
        controller = Controller(store, ControllerOptions(chosen.metrics_host, port))
        controller.on_fatal(ended.set)
        try:
            controller.start()
            ended.wait()
        finally:
            controller.stop()
    finally:
        store.close()
    return 70 if controller.fatal is not None else 0
