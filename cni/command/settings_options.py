"""The options that make the cluster-wide settings: those of `agent`, and of `explain`, which foretells it.

A configuration file says all of them, so that an option beside it would be a second truth: it is refused.
"""

from __future__ import annotations

import argparse
import os

from actors.decisions.settings import Settings
from actors.errors import InvalidObject
from cni.command.config_file import NAMESPACE, Configuration, read_config


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
    for family in (4, 6):
        group.add_argument(
            f"--default-ipv{family}-ippool",
            action="append",
            default=[],
            metavar="POOL",
            help="cluster default pool, tried before those with spec.default: true; may be repeated",
        )


def read_settings(chosen: argparse.Namespace) -> Settings:
    """The settings that were chosen. Raises `InvalidObject` for a combination that cannot be."""
    return read_configuration(chosen).settings


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
    )
    if chosen.config is None:
        return Configuration(given)
    if given != Settings():
        raise InvalidObject(
            f"--config {chosen.config} and options for single settings are both given; write these into the file"
        )
    return read_config(chosen.config, namespace=os.environ.get("POD_NAMESPACE") or NAMESPACE)
