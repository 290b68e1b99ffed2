"""Networks that the node has in files, for NetworkAttachmentDefinitions that say nothing but a name.

What must always hold: a directory is read within bounds, and a file that cannot be read is passed over with a warning:
it is the administrator's, and another pod's network.
Source: "Kubernetes Network Custom Resource Definition De-facto Standard", version 1.3, section 3.4.1.
"""

from __future__ import annotations

import logging
from pathlib import Path

from actors.errors import InvalidRequest
from actors.resources.network_attachment import LONGEST_CONFIG
from cni.networks.network_list import NetworkList, read_network_list

log = logging.getLogger("orbweaver.networks")

MOST_FILES = 256
_ENDINGS = ((".conflist",), (".conf", ".json"))
"""Lists go before single configurations."""


def find_config(directory: Path, name: str, subject: str) -> NetworkList | None:
    """The network of that name in the directory's files, in the order of their names; None without one."""
    try:
        files = sorted(directory.iterdir())[:MOST_FILES]
    except OSError:
        return None
    for endings in _ENDINGS:
        for file in files:
            if file.suffix in endings:
                try:
                    with file.open(encoding="utf-8") as opened:
                        listed = read_network_list(opened.read(LONGEST_CONFIG + 1), f"{subject}: {file}", "")
                except (OSError, UnicodeDecodeError, InvalidRequest) as error:
                    log.warning(
                        "a network's file cannot be read", extra={"file": str(file), "error": str(error)}
                    )
                    continue
                if listed.name == name:
                    return listed
    return None
