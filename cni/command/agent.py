"""`orbweaver agent`: serve CNI requests on this node until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path
from typing import Any

from actors.decisions.chained_conf import NAME as CONF_NAME
from actors.store.kubernetes.store import KubernetesStore
from cni import shim
from cni.command import option_values
from cni.command.serving import add_process_options, metrics_port, serve
from cni.command.settings_options import (
    add_leader_options,
    add_settings_options,
    read_configuration,
    read_leadership,
)
from cni.command.store_choice import add_data_option, agent_store
from cni.networks.attachment_cache import DIRECTORY as NETWORKS_CACHE
from cni.networks.network_list import NAME as NETWORKS
from cni.process.agent import METRICS_PORT, SOCKET, Agent, AgentOptions
from cni.process.node_taint import TAINT
from cni.server.del_spool import DIRECTORY as SPOOL
from cni.server.node_cni_files import DIRECTORY as CNI_DIRECTORY
from cni.server.node_conf import NodeConf, wanted_in
from cni.shim.keeper import PluginKeeper
from metrics.logs import set_up


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser("agent", help="serve CNI requests on this node", description=__doc__)
    parser.add_argument(
        "--standalone",
        action="store_true",
        help="on a host without Kubernetes: keep objects in the embedded store",
    )
    add_data_option(parser)
    parser.add_argument(
        "--socket",
        type=option_values.socket_path,
        help=f"Unix socket for the CNI plugin (what the configuration says, else {SOCKET})",
    )
    parser.add_argument(
        "--node",
        default=os.environ.get("NODE_NAME") or socket.gethostname(),
        help="this node's name in the cluster (%(default)s; or set NODE_NAME)",
    )
    add_process_options(parser, METRICS_PORT)
    parser.add_argument(
        "--timeout",
        type=option_values.seconds,
        default=20.0,
        help="seconds to answer a CNI request in (%(default)s)",
    )
    parser.add_argument(
        "--install-plugin",
        type=Path,
        metavar="DIRECTORY",
        help="put the CNI plugin there first, e.g. /opt/cni/bin",
    )
    parser.add_argument(
        "--cni-conf-dir",
        type=Path,
        default=CNI_DIRECTORY,
        metavar="DIRECTORY",
        help="where the runtime finds the node's network (%(default)s)",
    )
    parser.add_argument(
        "--cni-conf",
        type=Path,
        metavar="FILE",
        help=f"write {CONF_NAME} there while serving: a network configuration list, or an object with `chain`, plugins that "
        "go behind those of the node's own list, and `ipam`, which takes the place of theirs (nothing is written)",
    )
    parser.add_argument(
        "--host-root",
        type=Path,
        default=Path("/"),
        metavar="DIRECTORY",
        help="where the node's own file system is mounted: plugins of networks are executed in it (%(default)s)",
    )
    parser.add_argument(
        "--networks-cache",
        type=Path,
        default=NETWORKS_CACHE,
        metavar="DIRECTORY",
        help="where it is noted which networks pods were attached to (%(default)s)",
    )
    parser.add_argument(
        "--take-taint-off",
        action="store_true",
        help=f"take the taint {TAINT} off this node once it serves",
    )
    parser.add_argument(
        "--spool",
        type=Path,
        metavar="DIRECTORY",
        help=f"where DELs are kept that come while no agent runs ({SPOOL}; with --socket, beside the socket)",
    )
    add_leader_options(parser, controller=False)
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Serve; 0 after a signal, 70 when an actor crashed too often."""
    set_up(chosen.log_level)
    configuration = read_configuration(chosen)
    keeper = None
    if chosen.install_plugin is not None:
        more = (NETWORKS,) if configuration.settings.networks.enabled else ()
        keeper = PluginKeeper(chosen.install_plugin, (*shim.PLUGINS, *more))
        keeper.install()
    store = agent_store(chosen, chosen.node)
    cluster = isinstance(store, KubernetesStore)
    options = AgentOptions(
        node=chosen.node,
        cni_socket=chosen.socket or configuration.socket,
        metrics_host=chosen.metrics_host,
        metrics_port=metrics_port(chosen),
        timeout=chosen.timeout,
        cluster=cluster,
        leadership=read_leadership(chosen, configuration.leadership) if cluster else None,
        settings=configuration.settings,
        cni_conf=chosen.cni_conf_dir,
        networks_cache=chosen.networks_cache,
        host_root=chosen.host_root,
        plugins=keeper,
        take_taint_off=chosen.take_taint_off and cluster,
        conf=None if chosen.cni_conf is None else NodeConf(chosen.cni_conf_dir, wanted_in(chosen.cni_conf)),
        spool=chosen.spool or (SPOOL if chosen.socket is None else None),
    )
    return serve(Agent(store, options), store)
