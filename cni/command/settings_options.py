"""The options that make the cluster-wide settings: those of `agent`, and of `explain`, which foretells it.

A configuration file says all of them, so that an option beside it would be a second truth: it is refused.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.cluster.leadership import Leadership
from actors.cluster.lease import Timing
from actors.decisions.detection import Detection
from actors.decisions.settings import Settings
from actors.errors import InvalidObject
from actors.store.contract import Store
from cni.command import option_values
from cni.command.config_file import Configuration, own_namespace, read_config


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each setting."""
    group = parser.add_argument_group("settings", "give `agent` and `explain` the same")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="conf.yml of the ConfigMap orbweaver-conf, in place of the other options here",
    )
    group.add_argument("--no-ipv4", action="store_true", help="give out no IPv4 addresses")
    group.add_argument("--no-ipv6", action="store_true", help="give out no IPv6 addresses")
    group.add_argument(
        "--no-statefulset", action="store_true", help="do not keep StatefulSet pods' addresses"
    )
    group.add_argument(
        "--keep-scaled-down",
        action="store_true",
        help="keep them also for pods that the StatefulSet was scaled down by",
    )
    group.add_argument(
        "--no-kubevirt", action="store_true", help="do not keep virtual machines' addresses (KubeVirt)"
    )
    group.add_argument(
        "--detect-ip-conflict",
        action="store_true",
        help="probe addresses on the wire before pods get them",
    )
    group.add_argument("--detect-gateway", action="store_true", help="and whether their gateways answer")
    for family in (4, 6):
        group.add_argument(
            f"--default-ipv{family}-ippool",
            action="append",
            default=[],
            metavar="POOL",
            help="cluster default pool, tried before those with spec.default: true; may be repeated",
        )


def add_leader_options(parser: argparse.ArgumentParser, *, controller: bool) -> None:
    """Add what agents and controllers must know of each other."""
    group = parser.add_argument_group("leader", "the controller that allocates for all agents")
    group.add_argument(
        "--namespace",
        default=own_namespace(),
        help="where the Lease and the agents' service account are (%(default)s; or set POD_NAMESPACE)",
    )
    usual = Leadership()
    if not controller:
        group.add_argument(
            "--leader-budget",
            type=option_values.seconds,
            metavar="SECONDS",
            help=f"a leader that shows no sign of life for so long is left ({usual.budget:g})",
        )
        group.add_argument(
            "--leader-token",
            type=Path,
            metavar="FILE",
            help=f"the projected service account token that is shown to the leader ({usual.token})",
        )
        return
    group.add_argument(
        "--leader-port",
        type=option_values.port,
        metavar="PORT",
        help=f"served to agents; 0: a free one ({usual.port})",
    )
    for name, value, about in (
        ("lease-duration", usual.timing.lease, "after so long without a renewal others take the Lease"),
        ("renew-deadline", usual.timing.renew, "a leader that cannot renew for so long stops leading"),
        ("retry-period", usual.timing.retry, "between attempts to take or renew it"),
    ):
        group.add_argument(
            f"--{name}", type=option_values.seconds, metavar="SECONDS", help=f"{about} ({value:g})"
        )


def read_leadership(chosen: argparse.Namespace, configured: Leadership) -> Leadership:
    """The options, each before what the configuration file says. Raises `InvalidObject`."""
    timing = configured.timing

    def given(name: str, usual: Any) -> Any:
        value = getattr(chosen, name, None)
        return usual if value is None else value

    return replace(
        configured,
        namespace=chosen.namespace,
        timing=Timing(
            given("lease_duration", timing.lease),
            given("renew_deadline", timing.renew),
            given("retry_period", timing.retry),
        ),
        port=given("leader_port", configured.port),
        budget=given("leader_budget", configured.budget),
        token=given("leader_token", configured.token),
    )


def read_settings(chosen: argparse.Namespace) -> Settings:
    """The settings that were chosen. Raises `InvalidObject` for a combination that cannot be."""
    return read_configuration(chosen).settings


def settings_on(store: Store, chosen: argparse.Namespace) -> Settings:
    """The settings that were chosen, else those of the cluster that the store is. Raises `InvalidObject`."""
    from actors.store.sqlite.store import SQLiteStore

    given = read_settings(chosen)
    if isinstance(store, SQLiteStore):
        return given
    if chosen.config is None and given == Settings():
        from cni.command.cluster_settings import cluster_settings

        given = cluster_settings(store)
    return replace(given, networks_annotated=True)


def read_configuration(chosen: argparse.Namespace) -> Configuration:
    """The same with what else a configuration file says. Raises `InvalidObject`."""
    given = Settings(
        enable_ipv4=not chosen.no_ipv4,
        enable_ipv6=not chosen.no_ipv6,
        enable_statefulset=not chosen.no_statefulset,
        enable_kubevirt=not chosen.no_kubevirt,
        keep_scaled_down=chosen.keep_scaled_down,
        default_ipv4_pools=tuple(chosen.default_ipv4_ippool),
        default_ipv6_pools=tuple(chosen.default_ipv6_ippool),
        detection=Detection(conflicts=chosen.detect_ip_conflict, gateways=chosen.detect_gateway),
    )
    if chosen.config is None:
        return Configuration(given)
    if given != Settings():
        raise InvalidObject(
            f"--config {chosen.config} and options for single settings are both given; write these into the file"
        )
    return read_config(chosen.config, namespace=own_namespace())
