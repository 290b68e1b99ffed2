"""`orbweaver demo`: the main job in a sandbox of its own, in about ten seconds; leaves nothing behind.

A macvlan network on a stand-in for a network card, an agent on the embedded store, pods that ping each other, a
StatefulSet pod that keeps its address, a Deployment with a pool of its own out of a subnet, a container that vanishes without
DEL and is reclaimed, and latencies.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.decisions.auto_pool import NAME
from actors.errors import OrbweaverError, StoreUnavailable
from actors.resources.blocks.block import Block
from actors.resources.blocks.record import Record
from cni import shim
from cni.command import option_values
from cni.command.sandbox import CniNetwork, SandboxPod, enter, find_plugins, lay_cable

UPLINK = "uplink0"
START_TIMEOUT = 60.0
MOST_ADDS = 128

POOLS = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata:
  name: blue-v4
spec:
  subnet: 10.6.0.0/16
  ips: ["10.6.168.101-10.6.168.250"]
  gateway: 10.6.0.1
  default: true
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata:
  name: blue-v6
spec:
  subnet: fd00:6::/64
  ips: ["fd00:6::a8:1-fd00:6::a8:ff"]
  gateway: fd00:6::1
  default: true
"""

STATEFULSET = """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: default}
spec: {replicas: 1}
"""

STATEFULSET_POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: db-0
  namespace: default
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: demo, controller: true}]
"""

SUBNET = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderSubnet
metadata: {name: floor}
spec: {subnet: 10.8.0.0/16, ips: ["10.8.1.1-10.8.1.50"], gateway: 10.8.0.1}
"""

SHOP = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: default}
spec:
  replicas: REPLICAS
  template:
    metadata:
      annotations: {"ipam.spidernet.io/subnet": '{"ipv4": ["floor"]}'}
"""

SHOP_POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: shop-NUMBER
  namespace: default
  annotations: {"ipam.spidernet.io/subnet": '{"ipv4": ["floor"]}'}
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: shop, uid: demo, controller: true}]
"""


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser("demo", help="see the main job done, in a sandbox", description=__doc__)
    parser.add_argument("--cni-bin", type=Path, metavar="DIRECTORY", help="where the CNI plugin macvlan is")
    parser.add_argument(
        "--adds",
        type=option_values.count(MOST_ADDS),
        default=100,
        help=f"ADDs to time in each row of the table, up to {MOST_ADDS} (%(default)s)",
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Show it; 0 when every step did what it says."""
    plugins = find_plugins("macvlan", chosen.cni_bin)
    if chosen.inside is not None:
        lay_cable(UPLINK)
        return _Demo(chosen.inside, plugins).play(chosen.adds)
    # Asked to end, it removes its files; what runs in the sandbox goes in any case.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="orbweaver-demo-", ignore_cleanup_errors=True) as directory:
        program = [sys.executable, "-P", "-m", "cni.command.main", "demo", "--inside", directory]
        return enter([*program, "--cni-bin", str(plugins), "--adds", str(chosen.adds)], os.environ)


class _Demo:
    """One run, with its files in `directory`."""

    def __init__(self, directory: Path, plugins: Path) -> None:
        self.directory = directory
        self.socket = directory / "agent.sock"
        self.environment = {**os.environ, "ORBWEAVER_DATA": str(directory / "orbweaver.db")}
        shim.install(directory / "bin", names=("spiderpool",))
        self.ipam = {"type": "spiderpool", "ipam_unix_socket_path": str(self.socket)}
        conf = {"cniVersion": "1.0.0", "name": "blue", "type": "macvlan", "master": UPLINK, "mode": "bridge"}
        self.network = CniNetwork({**conf, "ipam": self.ipam}, (plugins, directory / "bin"))

    def play(self, adds: int) -> int:
        """The story, step by step."""
        _title("Two pools, as kubectl would apply them")
        print(POOLS.rstrip())
        self._orbweaver("apply", "-f", "-", feed=POOLS)
        with self._agent():
            web = self._pods()
            self._explain()
            self._statefulset(web)
            self._application()
            self._reclaim()
            self._latencies(adds)
            _title("Deletion")
            for pod in web:
                pod.stop()
            print(f"{len(web)} pods deleted")
            self._wait_for_views()
            self._orbweaver("get", "sp")
        _title("Done: the sandbox and everything in it goes now")
        return 0

    def _pods(self) -> list[SandboxPod]:
        _title("Pods ask for addresses through the macvlan plugin")
        pods = [SandboxPod(f"web-{letter}", self.network) for letter in "abc"]
        for pod in pods:
            started = time.perf_counter()
            addresses = pod.start()
            print(f"{pod.name:8} {'  '.join(addresses):50} {(time.perf_counter() - started) * 1000:6.1f} ms")
        first, second = pods[0], pods[1]
        for address in second.addresses:
            print(
                f"{first.name} pings {second.name} at {address.partition('/')[0]:16} {first.ping(address):6.2f} ms"
            )
        first.check()
        print(f"CHECK of {first.name}: as recorded")
        return pods

    def _explain(self) -> None:
        _title("Why this pool? (orbweaver explain)")
        self._orbweaver("explain", "default/web-d")

    def _statefulset(self, others: Sequence[SandboxPod]) -> None:
        _title("A StatefulSet's pod keeps its addresses")
        self._orbweaver("apply", "-f", "-", feed=STATEFULSET + "---\n" + STATEFULSET_POD)
        pod = SandboxPod("db-0", self.network)
        first = pod.start()
        print(f"db-0     {'  '.join(first)}   in container {pod.container[:12]}")
        pod.stop()
        between = SandboxPod("web-x", self.network)
        print(f"web-x    {'  '.join(between.start())}   started while db-0 is away")
        again = SandboxPod("db-0", self.network)
        second = again.start()
        print(f"db-0     {'  '.join(second)}   in container {again.container[:12]}")
        if first != second or set(first) & set(between.addresses):
            raise OrbweaverError(f"db-0 had {first} and came back with {second}")
        print(f"db-0 answers {others[0].name}: {others[0].ping(second[0]):.2f} ms")
        again.stop()
        between.stop()
        self._orbweaver("delete", "statefulset", "db", "-n", "default")
        self._wait_until_free(second[0])
        print("the StatefulSet is deleted, and the address is free again")

    def _application(self) -> None:
        _title("An application gets a pool of its own, which follows its replicas")
        print(SUBNET.rstrip())
        pods = [SHOP_POD.replace("NUMBER", letter) for letter in "ab"]
        self._orbweaver("apply", "-f", "-", feed="---\n".join([SUBNET, SHOP.replace("REPLICAS", "2"), *pods]))
        self._orbweaver("explain", "default/shop-a")
        shops = [SandboxPod(f"shop-{letter}", self.network) for letter in "ab"]
        for pod in shops:
            print(f"{pod.name:8} {'  '.join(pod.start())}")
        self._wait_for_pool("shop", 3)
        print("two replicas, and an address to spare:")
        self._orbweaver("get", "ss,sp")
        self._orbweaver("apply", "-f", "-", feed=SHOP.replace("REPLICAS", "4"))
        self._wait_for_pool("shop", 5)
        print("scaled to four:")
        self._orbweaver("get", "sp")
        for pod in shops:
            pod.stop()
        self._orbweaver("delete", "deployment", "shop", "-n", "default")
        self._wait_for_pool("shop", None)
        print("the Deployment is deleted, and its pool with it")
        self._orbweaver("delete", "ss", "floor")

    def _wait_for_pool(self, application: str, size: int | None) -> None:
        """Until the application's pool has so many addresses; None: until there is none."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            pools = [
                pool
                for pool in json.loads(self._output("get", "sp", "-o", "json"))["items"]
                if (pool["metadata"].get("labels") or {}).get(NAME) == application
            ]
            sizes = [(pool.get("status") or {}).get("totalIPCount") for pool in pools]
            if sizes == ([] if size is None else [size]):
                return
            if time.monotonic() > deadline:
                raise OrbweaverError(
                    f"the pool of {application} has {sizes} addresses after {START_TIMEOUT:g} s, not {size}"
                )
            time.sleep(0.1)

    def _reclaim(self) -> None:
        _title("A container vanishes without DEL: CNI GC reclaims its addresses")
        lost = SandboxPod("lost", self.network)
        addresses = lost.start()
        lost.vanish()
        self._orbweaver("ip", "show", addresses[0].partition("/")[0])
        conf = {**self.network.conf, "cniVersion": "1.1.0", "type": "spiderpool"}
        valid = [
            {"containerID": record.container, "ifname": "eth0"}
            for record in self._recorded()
            if record.container != lost.container
        ]
        CniNetwork(conf, self.network.plugins).call("GC", {}, {"cni.dev/valid-attachments": valid})
        self._wait_until_free(addresses[0])
        print("after GC:")
        self._orbweaver("ip", "show", addresses[0].partition("/")[0])

    def _recorded(self) -> list[Record]:
        blocks = json.loads(self._output("get", "spideripblocks", "-o", "json"))
        return [record for block in blocks["items"] for record in Block.from_object(block).records.values()]

    def _wait_until_free(self, address: str) -> None:
        text = address.partition("/")[0]
        deadline = time.monotonic() + START_TIMEOUT
        while json.loads(self._output("ip", "show", text, "-o", "json")).get("record"):
            if time.monotonic() > deadline:
                raise OrbweaverError(f"{text} was not given back within {START_TIMEOUT:g} s")
            time.sleep(0.05)

    def _wait_for_views(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while any(
            pool.get("status", {}).get("allocatedIPCount", 0)
            for pool in json.loads(self._output("get", "sp", "-o", "json"))["items"]
        ):
            if time.monotonic() > deadline:
                raise OrbweaverError("addresses are still recorded after every pod was deleted")
            time.sleep(0.1)

    def _latencies(self, adds: int) -> None:
        _title(f"Latency of the IPAM plugin alone, {adds} requests a row (dual stack: two addresses an ADD)")
        network = CniNetwork({**self.network.conf, "type": "spiderpool"}, self.network.plugins)
        print(f"{'':26}{'p50':>10}{'p99':>10}{'per second':>13}")
        for width in (1, 16):
            # As many pods at once as the pools have room for beside those of the story.
            self._time(network, width, adds)

    def _time(self, network: CniNetwork, width: int, count: int) -> None:
        containers = [uuid.uuid4().hex for _ in range(count)]

        def call(command: str, container: str) -> float:
            started = time.perf_counter()
            network.call(
                command, {"CNI_CONTAINERID": container, "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0"}
            )
            return (time.perf_counter() - started) * 1000

        with ThreadPoolExecutor(width) as pool:
            for command in ("ADD", "DEL"):
                started = time.perf_counter()
                times = sorted(
                    pool.map(lambda container, command=command: call(command, container), containers)
                )
                took = time.perf_counter() - started
                row = f"{command}, {width} at once"
                p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
                print(f"{row:26}{statistics.median(times):7.2f} ms{p99:7.2f} ms{count / took:13.0f}")

    @contextmanager
    def _agent(self) -> Iterator[None]:
        command = [
            *(sys.executable, "-P", "-m", "cni.command.main", "agent", "--standalone", "--node", "demo"),
            *("--socket", str(self.socket), "--metrics-port", "0"),
        ]
        log = self.directory / "agent.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(command, env=self.environment, stderr=output) as agent,
        ):
            try:
                deadline = time.monotonic() + START_TIMEOUT
                while not self.socket.exists():
                    if agent.poll() is not None or time.monotonic() > deadline:
                        raise StoreUnavailable(
                            "the agent did not start", details=tuple(log.read_text().splitlines())
                        )
                    time.sleep(0.01)
                yield
            except OrbweaverError as error:
                raise OrbweaverError(
                    error.message,
                    details=(*error.details, "the agent's log ends:", *log.read_text().splitlines()[-10:]),
                ) from error
            finally:
                agent.terminate()
                agent.wait(START_TIMEOUT)

    def _orbweaver(self, *arguments: str, feed: str | None = None) -> None:
        print(f"$ orbweaver {' '.join(arguments)}")
        print(self._output(*arguments, feed=feed).rstrip())

    def _output(self, *arguments: str, feed: str | None = None) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cni.command.main", *arguments],
            input=feed,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise OrbweaverError(
                f"`orbweaver {' '.join(arguments)}` failed", details=tuple(done.stderr.splitlines())
            )
        return done.stdout


def _title(text: str) -> None:
    print(f"\n=== {text}", flush=True)
