"""What goes from a node's files, what stays because it is others', and what is told."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.decisions.chained_conf import NAME as CONF
from actors.store.atomic_file import UNFINISHED
from cni import shim
from cni.networks.network_list import NAME as NETWORKS
from cni.server.del_spool import DelSpool
from cni.uninstall.node import within
from cni.uninstall.node_pods import NodeWork, leave_word
from tests.support.agent_process import PROGRAM

ANOTHERS = '{"plugins": [{"type": "macvlan", "ipam": {"type": "spiderpool"}}]}'

Uninstall = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def uninstall(root: Path) -> Uninstall:
    """The command on the node, in a network namespace of its own."""
    prefix = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--user", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("NOT TESTED: a network namespace cannot be made here")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [*prefix, *PROGRAM, "uninstall", "node", f"--root={root}", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node before Orbweaver came: with another plugin, another configuration, and `/var/run` as distributions have it."""
    root = tmp_path / "node"
    for directory in ("opt/cni/bin", "etc/cni/net.d", "run", "var/lib/cni/results"):
        (root / directory).mkdir(parents=True)
    (root / "var/run").symlink_to("/run")
    (root / "opt/cni/bin/macvlan").write_bytes(b"a program")
    (root / "etc/cni/net.d/10-calico.conflist").write_text('{"plugins": [{"type": "calico"}]}')
    (root / "var/lib/cni/results/net-c1-eth0").write_text("{}")
    return root


def install(root: Path) -> Path:
    """What agents leave on a node, as they leave it; returns the socket's path."""
    shim.install(root / "opt/cni/bin", (*shim.PLUGINS, NETWORKS))
    (root / f"opt/cni/bin/.ifacer.abc{UNFINISHED}").write_bytes(b"")
    (root / f"etc/cni/net.d/{CONF}").write_text("{}")
    (root / f"etc/cni/net.d/.{CONF}.abc{UNFINISHED}").write_text("{")
    agent = root / "run/spidernet/spiderpool.sock"
    agent.parent.mkdir()
    DelSpool(agent, root / "var/lib/orbweaver/spool").prepare()
    (root / "var/lib/orbweaver/spool/c1@eth0@spiderpool").write_bytes(b"OWC1")
    (root / "var/lib/orbweaver/networks").mkdir()
    (root / "var/lib/orbweaver/networks/c1.json").write_text("{}")
    (root / "var/lib/orbweaver/orbweaver.db").write_bytes(b"")
    with listening(agent):
        pass
    return agent


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """Somebody at a socket; its file stays, as after a kill."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_the_file_tree_is_as_it_was_before(root: Path, uninstall: Uninstall) -> None:
    before = tree(root)
    install(root)
    there = tree(root)

    dry = uninstall()
    assert tree(root) == there, dry.stdout
    done = uninstall("--yes")
    assert tree(root) == before
    assert done.returncode == 0, done.stderr

    told = [line.removeprefix("would remove ") for line in dry.stdout.splitlines()[:-1]]
    assert told == [line.removeprefix("removed ") for line in done.stdout.splitlines()]
    assert dry.stdout.splitlines()[-1] == "Nothing was changed. Repeat it with --yes to do it."
    assert done.stdout.index(CONF) < done.stdout.index(
        "/opt/cni/bin/"
    )  # no pod is started with a plugin that is gone
    assert uninstall("--yes").stdout == "nothing of it is here\n"


def test_what_is_others_stays_and_is_named(root: Path, uninstall: Uninstall) -> None:
    install(root)
    (root / "opt/cni/bin/coordinator").write_bytes(b"Spiderpool's")
    (root / "etc/cni/net.d/20-underlay.conflist").write_text(ANOTHERS)
    (root / "run/spidernet/another.txt").write_text("")

    done = uninstall("--yes")

    assert done.returncode == 0, done.stderr
    assert (root / "opt/cni/bin/coordinator").read_bytes() == b"Spiderpool's"
    assert (root / "etc/cni/net.d/20-underlay.conflist").read_text() == ANOTHERS
    left = [line.removeprefix("left: ") for line in done.stdout.splitlines() if line.startswith("left: ")]
    assert left == [
        f"{root}/etc/cni/net.d/20-underlay.conflist names the plugin spiderpool: remove it, or pods get no network",
        f"{root}/opt/cni/bin/coordinator is another program of this name",
        f"{root}/run/spidernet has files of others: another.txt",
    ]


def test_what_a_takeover_left_beside_configurations_is_named(root: Path, uninstall: Uninstall) -> None:
    install(root)
    directory = root / "etc/cni/net.d"
    (directory / "04-orbweaver.conflist.taken-over").write_text("{}")
    (directory / "10-cbr0.conflist.taken-over").write_text("{}")

    done = uninstall("--yes")

    assert not (directory / "04-orbweaver.conflist.taken-over").exists()
    assert (directory / "10-cbr0.conflist.taken-over").exists()
    assert f"left: {directory}/10-cbr0.conflist.taken-over has what the ipam of" in done.stdout


def test_nothing_goes_while_an_agent_answers(root: Path, uninstall: Uninstall) -> None:
    agent = install(root)
    agent.unlink()
    before = tree(root)

    with listening(agent):
        refused = uninstall("--yes")
        assert refused.returncode == 1
        assert f"an agent answers at {agent}" in refused.stderr
        agent.unlink()
        assert tree(root) == before

    with listening(agent):
        beside = uninstall("--yes", "--spiderpool-stays")
    assert beside.returncode == 0, beside.stderr
    assert agent.is_socket()
    assert not (root / "var/lib/orbweaver").exists()
    assert not (root / "opt/cni/bin/spiderpool").exists()


def test_what_cannot_be_removed_is_named_and_the_rest_goes(root: Path, uninstall: Uninstall) -> None:
    install(root)
    (root / "opt/cni/bin").rename(root / "opt/cni/real")
    if subprocess.run(["chattr", "+i", str(root / "opt/cni/real/ifacer")], check=False).returncode:
        pytest.skip("NOT TESTED: no file of this file system can be made immutable here")
    (root / "opt/cni/bin").symlink_to("real")
    try:
        done = uninstall("--yes")
    finally:
        subprocess.run(["chattr", "-i", str(root / "opt/cni/real/ifacer")], check=True)

    assert done.returncode == 1
    assert f"{root}/opt/cni/real/ifacer: Operation not permitted" in done.stderr
    assert not (root / "var/lib/orbweaver").exists()
    assert uninstall("--yes").returncode == 0
    assert not (root / "opt/cni/real/ifacer").exists()


def test_links_are_followed_inside_the_nodes_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, target in {"up": "/a", "a/out": "../../../../a/b", "round": "round"}.items():
        (tmp_path / name).symlink_to(target)

    assert within(tmp_path, Path("/up/out/c")) == tmp_path / "a/b/c"
    assert within(tmp_path, Path("/none/c")) == tmp_path / "none/c"
    with pytest.raises(OSError, match="symbolic links"):
        within(tmp_path, Path("/round"))


def test_a_pod_s_last_words_are_what_stays(tmp_path: Path) -> None:
    """No more than a kubelet reads; and elsewhere no file is made."""
    path = tmp_path / "termination-log"
    leave_word(["a"], path)
    assert not path.exists()

    path.touch()
    leave_word([], path)
    assert path.read_text() == ""
    leave_word(["/etc/cni/net.d/7.conf names ifacer", "bond0"], path)
    assert path.read_text() == "/etc/cni/net.d/7.conf names ifacer\nbond0"
    leave_word(["x" * 10_000], path)
    assert len(path.read_text()) == 4096


def test_a_node_s_pod_sees_namespaces_that_are_mounted_after_its_start() -> None:
    """Else it would take the interface of a pod that starts meanwhile for one that nobody uses."""
    (container,) = NodeWork("orbweaver-system", "an-image").pod("n1")["spec"]["containers"]

    assert [mount["mountPropagation"] for mount in container["volumeMounts"]] == ["HostToContainer"]
