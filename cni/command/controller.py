"""`orbweaver controller`: allocate and look after pools for a whole cluster, until SIGTERM or SIGINT.

Run two or more: a Lease says which of them leads. The leader gives out addresses for all agents, completes pools made with
kubectl, writes their status, lets deleted ones go with their last address, and takes back addresses
whose holder is gone without a DEL. Agents give out addresses by themselves while there is none.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from cni.admission.webhook import PORT
from cni.command.option_values import port_or_none
from cni.command.serving import add_process_options, metrics_port, serve
from cni.command.settings_options import (
    add_leader_options,
    add_settings_options,
    read_configuration,
    read_leadership,
)
from cni.command.store_choice import add_data_option, cluster_store
from cni.process.controller import METRICS_PORT, Controller, ControllerOptions, own_address
from metrics.logs import set_up


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "controller", help="allocate and look after pools, for a whole cluster", description=__doc__
    )
    add_data_option(parser)
    add_process_options(parser, METRICS_PORT)
    add_leader_options(parser, controller=True)
    parser.add_argument(
        "--leader-address",
        metavar="HOST[:PORT]",
        default=os.environ.get("NODE_ADDRESS"),
        help="where agents reach this process (this host's address on the way to the API server; or set NODE_ADDRESS)",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        default="",
        help="address of this host to serve agents on (all of them)",
    )
    parser.add_argument(
        "--webhook-port",
        type=port_or_none,
        default=PORT,
        metavar="PORT",
        help="port of --listen on which API servers ask what may be stored; 0 takes a free one, -1 serves no webhook "
        "(%(default)s)",
    )
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
        leadership=read_leadership(chosen, configuration.leadership),
        address=chosen.leader_address or own_address(store.access.host, store.access.port),
        listen=chosen.listen,
        settings=configuration.settings,
        webhook_port=None if chosen.webhook_port < 0 else chosen.webhook_port,
    )
    return serve(Controller(store, options), store)
