"""The settings that a cluster's agents have, for a command that foretells what they will do: those of the ConfigMap that
`deploy/` makes.

What must always hold: whoever is shown a decision on other settings than the cluster's is told so.
"""

from __future__ import annotations

import sys

from actors.decisions.settings import Settings
from actors.errors import InvalidObject, NotFound, StoreUnavailable
from actors.store.contract import Store
from cni.command.config_file import own_namespace, parse_config
from cni.command.manifest import read_text

NAME = "orbweaver-conf"
KEY = "conf.yml"


def cluster_settings(store: Store) -> Settings:
    """What the ConfigMap says; without it, the defaults, and a line on standard error. Raises `InvalidObject` for what
    agents would not start with."""
    namespace = own_namespace()
    source = f"ConfigMap {namespace}/{NAME}"
    try:
        config_map = store.get("ConfigMap", NAME, namespace)
    except (NotFound, StoreUnavailable) as error:
        print(
            f"orbweaver: decided with default settings, which need not be the cluster's, because {source} cannot be read"
            f" ({error}); give its {KEY} with --config",
            file=sys.stderr,
        )
        return Settings()
    text = (config_map.get("data") or {}).get(KEY)
    if not isinstance(text, str):
        raise InvalidObject(f"{source} has no key {KEY}; agents do not start without it")
    where = f"{source}, {KEY}"
    return parse_config(read_text(text, where, "configuration"), where, namespace=namespace).settings
