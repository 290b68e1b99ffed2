"""What Orbweaver left on one node, and its removal: configuration, plugins, rules, sockets, and its own directory.

What must always hold: nothing is removed that somebody else may have put there: a plugin is ours only if its text says so,
a rule only if it leads into our table, a directory only if it is empty or bears our name. What is there is looked up anew
each time, so a removal that was interrupted is done by the next one. The runtime's configuration goes before the plugins
that it names, so that no pod is started with one that is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from actors.decisions.chained_conf import NAME as CONF_NAME
from actors.decisions.node_cni import SUFFIXES
from actors.errors import InvalidRequest
from actors.resources.json_text import LONGEST
from actors.store.atomic_file import UNFINISHED
from cni import shim
from cni.dataplane.coordinator.settings import HOST_TABLE
from cni.dataplane.coordinator.veth import ALIAS, HOST_VETH
from cni.dataplane.ifacer.mark import is_ours
from cni.dataplane.ifacer.plan import HostLinks
from cni.dataplane.netlink.links import delete_link, set_link
from cni.dataplane.netlink.routes import delete_neighbour, delete_route, delete_rule
from cni.dataplane.netlink.rtnetlink import Netlink
from cni.dataplane.state import Link, bare
from cni.networks.network_list import NAME as NETWORKS
from cni.server.node_cni_files import DIRECTORY as CNI_DIRECTORY
from cni.server.node_cni_files import MOST_FILES
from cni.takeover.host_local.node_files import FORMER
from cni.uninstall.interfaces import CONTAINERD, CONTAINERD_PLUGIN, NAMESPACES, judge, members, stood_on

PLUGINS = (*shim.PLUGINS, NETWORKS)
STATE = Path("/var/lib/orbweaver")
"""What lies in it is ours alone: kept DELs, notes of networks, the embedded store."""

_NAMES_ONE = re.compile(rf'"type"\s*:\s*"({"|".join(PLUGINS)})"')
_NAMED = 5
_LINKS = 40
"""Symbolic links on one path, beyond which the kernel says ELOOP."""


@dataclass(frozen=True, slots=True)
class NodeDirectories:
    """Where things are on a node."""

    plugins: Path = Path("/opt/cni/bin")
    """Of CNI."""
    configurations: Path = CNI_DIRECTORY
    """That the runtime reads."""
    sockets: Path = Path("/var/run/spidernet")
    """Of the agent."""
    state: Path = STATE
    """Ours alone."""


@dataclass(slots=True)
class NodeOutcome:
    """What became of it, in words."""

    removed: list[str] = field(default_factory=list)
    """Or, where nothing was to be changed, what would be."""
    left: list[str] = field(default_factory=list)
    """What is others', and why it is mentioned."""
    failed: list[str] = field(default_factory=list)
    """What could not be removed, and why."""


@dataclass(frozen=True, slots=True)
class _Removal:
    what: str
    do: Callable[[], object]


class NodeCleanup:
    """One look at a node, and what follows. `root`: where its file system is; `tables`: the numbers of the host's routing
    tables for pods; `shared`: Spiderpool goes on here, so what both use stays."""

    def __init__(
        self,
        directories: NodeDirectories,
        *,
        root: Path = Path("/"),
        tables: frozenset[int] = frozenset({HOST_TABLE}),
        shared: bool = False,
    ) -> None:
        self._plugins = within(root, directories.plugins)
        self._configurations = within(root, directories.configurations)
        self._sockets = within(root, directories.sockets)
        self._state = within(root, directories.state)
        self._root = root
        self._tables = tables
        self._shared = shared
        self._outcome = NodeOutcome()

    def run(self, tell: Callable[[str], object], *, dry: bool = False) -> NodeOutcome:
        """Remove it piece by piece and tell each; with `dry` only tell. Raises `InvalidRequest` while an agent runs."""
        if not self._shared and not dry:
            self._refuse_live()
        outcome = self._outcome = NodeOutcome()
        parts = [self._in_configurations, self._in_plugins, self._in_state]
        if not self._shared:
            parts[2:2] = [self._in_kernel, self._made_interfaces, self._in_sockets]
        for part in parts:
            try:
                for removal in part():
                    if dry or self._done(removal):
                        outcome.removed.append(removal.what)
                        tell(f"{'would remove' if dry else 'removed'} {removal.what}")
            except OSError as error:
                outcome.failed.append(str(error))
        return outcome

    def _done(self, removal: _Removal) -> bool:
        try:
            removal.do()
        except OSError as error:
            self._outcome.failed.append(f"{removal.what}: {error.strerror or error}")
            return False
        return True

    def _refuse_live(self) -> None:
        for path in _entries(self._sockets):
            if _answers(path):
                raise InvalidRequest(
                    f"an agent answers at {path}, and would put back what is removed: end it first, by `kubectl delete"
                    " daemonset` or by stopping its service; if it is Spiderpool's, add --spiderpool-stays"
                )

    # ---- files --------------------------------------------------------------------------------------------

    def _in_configurations(self) -> Iterator[_Removal]:
        yield from _written(self._configurations, CONF_NAME, CONF_NAME + FORMER)
        for path in _entries(self._configurations)[:MOST_FILES]:
            if (
                path.suffix in SUFFIXES
                and path.name != CONF_NAME
                and (names := _NAMES_ONE.search(_text(path)))
            ):
                self._outcome.left.append(
                    f"{path} names the plugin {names[1]}: remove it, or pods get no network"
                )
        for path in _entries(self._configurations):
            if path.name.endswith(FORMER) and path.name != CONF_NAME + FORMER:
                former = path.with_name(path.name.removesuffix(FORMER))
                self._outcome.left.append(
                    f"{path} has what the ipam of {former} was before a takeover: put it in again, then delete it"
                )

    def _in_plugins(self) -> Iterator[_Removal]:
        ours = [name for name in PLUGINS if shim.is_shim(self._plugins / name)]
        for name in PLUGINS:
            path = self._plugins / name
            if name not in ours and (path.is_symlink() or path.exists()):
                self._outcome.left.append(f"{path} is another program of this name")
        yield from _written(self._plugins, *ours)

    def _in_sockets(self) -> Iterator[_Removal]:
        others = []
        for path in _entries(self._sockets):
            # The link to kept DELs; or, where they are kept beside the socket, the directory itself.
            if path.is_symlink() or path.is_socket():
                yield _file(path)
            elif path.suffix == ".spool":
                yield _tree(path)
            else:
                others.append(path.name)
        if others:
            self._outcome.left.append(f"{self._sockets} has files of others: {', '.join(others[:_NAMED])}")
        else:
            yield from self._directory(self._sockets)

    def _in_state(self) -> Iterator[_Removal]:
        for path in _entries(self._state):
            yield _tree(path) if path.is_dir() and not path.is_symlink() else _file(path)
        yield from self._directory(self._state)

    def _directory(self, path: Path) -> Iterator[_Removal]:
        """An empty directory. One that something is mounted on stays: it is the node's."""
        if path.is_dir() and not path.is_mount():
            yield _Removal(f"directory {path}", path.rmdir)

    # ---- the kernel ---------------------------------------------------------------------------------------

    def _in_kernel(self) -> Iterator[_Removal]:
        """Ways of the host to pods."""
        with Netlink() as host:
            for nic in host.nics():
                if nic.name.startswith(HOST_VETH) and nic.alias.startswith(ALIAS):
                    yield _Removal(
                        f"interface {nic.name} to a pod", partial(host.send, [delete_link(nic.name)])
                    )
            indexes = {nic.name: nic.index for nic in host.nics()}
            for route in host.routes({index: name for name, index in indexes.items()}):
                if route.table in self._tables:
                    index = indexes[route.dev]
                    changes = [delete_route(route, index), delete_neighbour(bare(route.dst), index)]
                    yield _Removal(f"route {route}", partial(host.send, changes))
            for rule in host.rules():
                if rule.table in self._tables:
                    what = f"IPv{rule.family} rule {rule}"
                    yield _Removal(what, partial(host.send, [delete_rule(rule)]))

    def _made_interfaces(self) -> Iterator[_Removal]:
        """VLANs and bonds of the plugin ifacer. It cannot be looked into other namespaces without rights; then none goes."""
        with Netlink() as host:
            links = self._host_links(host)
            judged = judge(links, self._stood_on(host, links))
            for link in judged.going:
                yield _Removal(f"{link.kind} {link.name}", partial(self._remove_link, host, link, links))
        for link, uses in judged.used:
            self._outcome.left.append(
                f"{link.kind} {link.name}, which ifacer made: it {uses}; when that is over, repeat this command"
                f" or remove it (ip link delete {link.name})"
            )
        if judged.unmarked:
            names = ", ".join(link.name for link in judged.unmarked[:_NAMED])
            more = len(judged.unmarked) - _NAMED
            self._outcome.left.append(
                f"VLANs and bonds of which nothing tells who made them: {names}{f' and {more} more' if more > 0 else ''};"
                " ifacer of Orbweaver 0.1.0 left no mark, so remove those (ip link delete) that only pods used"
            )

    def _stood_on(self, host: Netlink, links: HostLinks) -> frozenset[int]:
        names = ", ".join(link.name for link in links.links if is_ours(link))
        try:
            return stood_on(host, self._namespaces()) if names else frozenset()
        except PermissionError as error:
            raise OSError(
                f"whether pods stand on {names} cannot be seen without the rights of root: {error.filename}: {error.strerror}"
            ) from error

    def _namespaces(self) -> Iterator[Path]:
        """The directories of pods' namespaces. Raises `OSError`."""
        for directory in NAMESPACES:
            yield within(self._root, directory)
        for state in CONTAINERD:
            for path in _entries(within(self._root, state)):
                if path.name.startswith(CONTAINERD_PLUGIN):
                    yield path / "netns"

    def _host_links(self, host: Netlink) -> HostLinks:
        """Every interface, and what is set up on them beside what goes anyway."""
        links = host.links()
        names = {link.index: link.name for link in links}
        addresses: dict[str, tuple[str, ...]] = {}
        for index, address in host.addresses():
            if index in names:
                addresses[names[index]] = (*addresses.get(names[index], ()), address)
        routes = tuple(route for route in host.routes(names) if route.table not in self._tables)
        return HostLinks(tuple(links), addresses, routes)

    def _remove_link(self, host: Netlink, link: Link, links: HostLinks) -> None:
        """Leaving a bond takes its members down; up they can be used as before."""
        host.send([delete_link(link.name)])
        host.send([set_link(member.index, up=True) for member in members(link, links)])


def within(root: Path, path: Path) -> Path:
    """Where an absolute path of the file system at `root` leads to, with links followed as after a chroot: a node's
    `/var/run` is a link to `/run`, which elsewhere is another directory. Raises `OSError` for a circle of links."""
    here, ahead, links = root, list(path.parts[1:]), 0
    while ahead:
        part = ahead.pop(0)
        step = here / part
        if part == "..":
            here = here.parent if here != root else root
        elif step.is_symlink():
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = step.readlink()
            here = root if target.is_absolute() else here
            ahead[:0] = [piece for piece in target.parts if piece != "/"]
        else:
            here = step
    return here


def _written(directory: Path, *names: str) -> Iterator[_Removal]:
    """Those files, and what a writer of ours that was killed left beside."""
    for path in _entries(directory):
        if path.name in names or path.name.endswith(UNFINISHED):
            yield _file(path)


def _file(path: Path) -> _Removal:
    return _Removal(str(path), lambda: path.unlink(missing_ok=True))


def _tree(path: Path) -> _Removal:
    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)

    return _Removal(f"directory {path}", remove)


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST)
    except OSError:
        return ""


def _answers(path: Path) -> bool:
    """Whether somebody accepts connections there."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True  # its queue is full, so it is there
        except OSError:
            return False
    return True
