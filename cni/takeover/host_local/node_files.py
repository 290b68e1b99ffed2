"""The CNI configurations that stand in files of this node: which name host-local, and their change there and back.

What must always hold: a file is replaced in one step, after what its `ipam` said stands beside it; the way back puts nothing
but that in again. The agent's own file is never changed: the agent makes it anew, from the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.decisions.chained_conf import NAME
from actors.decisions.node_cni import SUFFIXES
from actors.errors import InvalidObject, InvalidRequest
from actors.resources.fields import Fields
from actors.resources.json_text import LONGEST, UnreadableText, read_json
from actors.store.atomic_file import replace_file
from cni.takeover.host_local.ranges import IPAM_TYPE
from cni.takeover.networks import IpamSection, Network, network_of, with_sections

FORMER = ".taken-over"
"""How the name of the file ends, behind that of the configuration, with what its `ipam` said. Runtimes pass it over."""

COPIED = 120.0
"""Seconds that the agent's own file is waited for; the agent looks at it each 30 s."""


@dataclass(frozen=True, slots=True)
class NodeConfs:
    """The configurations of one directory."""

    directory: Path

    def networks(self) -> tuple[tuple[Network, ...], tuple[str, ...]]:
        """Those that name host-local, or did before a takeover, and a sentence for each file that cannot be read."""
        networks, problems = [], []
        paths = sorted(self.directory.iterdir()) if self.directory.is_dir() else []
        for path in paths:
            if path.suffix not in SUFFIXES or path.name == NAME:
                continue
            try:
                network = _network(path)
            except (OSError, InvalidObject) as error:
                text = error.message if isinstance(error, InvalidObject) else f"{path}: {error.strerror}"
                problems.append(text)
            else:
                networks += [network] if network is not None else []
        return tuple(networks), (*problems, *self._of_the_agent(networks))

    def lagging(self) -> str:
        """What is still to come, in words: the agent's own file names host-local, as what it is a copy of did. Empty when it
        does not, or is not there. Raises `InvalidObject` and `OSError`."""
        path = self.directory / NAME
        if not path.exists() or network_of(str(path), _text(path), IPAM_TYPE) is None:
            return ""
        return f"{path} names host-local; its agent makes it anew each 30 s"

    def _of_the_agent(self, networks: Iterable[Network]) -> tuple[str, ...]:
        """A sentence where the agent's own file names host-local and is no copy of one of these networks."""
        path = self.directory / NAME
        try:
            network = network_of(str(path), _text(path), IPAM_TYPE)
        except FileNotFoundError:
            return ()
        except OSError as error:
            return (f"{path}: {error.strerror}",)
        except InvalidObject as error:
            return (error.message,)
        if network is None or network.name in {other.name for other in networks}:
            return ()
        problem = (
            f"{path} names host-local, and the agent that writes it would undo a change: name Orbweaver's ipam where the agent"
            " has it from (--cni-conf), or delete it where no agent writes it any more"
        )
        return (problem,)

    def take(self, network: Network, sections: Mapping[int, Any]) -> None:
        """Have a file say `sections`. Raises `InvalidRequest` when it cannot be written."""
        path = Path(network.title)
        former = {str(section.place): dict(section.ipam.data) for section in network.sections}
        _write(_beside(path), former)
        _write(path, with_sections(network.configuration, sections))

    def give_back(self, network: Network) -> None:
        """Have it say what it said. Raises `InvalidRequest` likewise."""
        path = Path(network.title)
        sections = {section.place: dict(section.ipam.data) for section in network.sections}
        _write(path, with_sections(network.configuration, sections))
        _beside(path).unlink(missing_ok=True)


def _network(path: Path) -> Network | None:
    text = _text(path)
    network = network_of(str(path), text, IPAM_TYPE)
    if network is not None or not _beside(path).exists():
        return network
    configuration = Fields.of(str(path), "", read_json(text, only_showable=False))
    try:
        former = read_json(_text(_beside(path)), only_showable=False)
        sections = tuple(
            IpamSection(int(place), Fields.of(str(path), "ipam", ipam))
            for place, ipam in sorted(former.items())
        )
    except (UnreadableText, AttributeError, ValueError) as error:
        raise InvalidObject(
            f"{_beside(path)} cannot be read ({error}), so it is not known what the ipam of {path} was; write that yourself"
        ) from error
    return Network(str(path), configuration.text("name"), configuration.data, sections, is_ours=True)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + FORMER)


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(LONGEST + 1)


def _write(path: Path, content: Any) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    try:
        replace_file(path, json.dumps(content, indent=2).encode() + b"\n", mode)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}; run this as root") from error
