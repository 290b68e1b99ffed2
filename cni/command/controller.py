"""`orbweaver controller`: look after pools for a whole cluster, until SIGTERM or SIGINT.

It completes pools made with kubectl, writes their status, lets deleted ones go with their last address, and takes back
addresses whose holder is gone without a DEL. Agents give out addresses without it.
"""

from __future__ import annotations

import argparse
from typing import Any

from cni.command.data_file import add_data_option, cluster_store
from cni.command.serving import add_process_options, metrics_port, serve
from cni.command.settings_options import add_settings_options, read_configuration
from cni.controller import METRICS_PORT, Controller, ControllerOptions
from metrics.logs import set_up


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "controller", help="look after pools, for a whole cluster", description=__doc__
    )
    add_data_option(parser)
    add_process_options(parser, METRICS_PORT)
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Work; 0 after a signal, 70 when an actor crashed too often."""
    set_up(chosen.log_level)
    configuration = read_configuration(chosen)
    store = cluster_store(chosen)
    options = ControllerOptions(
        metrics_host=chosen.metrics_host,
        metrics_port=metrics_port(chosen),
        settings=configuration.settings,
    )
    return serve(Controller(store, options), store)
