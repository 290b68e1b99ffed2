"""explain: what an ADD would do now, and why; the real agent then does it."""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"


def test_it_names_the_pool_of_each_family_and_its_free_addresses(orbweaver, make_pool):
    v6 = make_pool("blue-v6", "fd00:6::-fd00:6::ffff:ffff:ffff:ffff", subnet="fd00:6::/64", default=True)
    orbweaver.apply(make_pool("blue", default=True) + v6)
    orbweaver.record("10.6.0.10", "blue")

    done = orbweaver("explain", "default/web-d")

    assert done.status == 0
    assert "eth0 IPv4: an address of pool blue (9 of 10 free)" in done.out
    assert f"eth0 IPv6: an address of pool blue-v6 ({2**64 - 1} of {2**64 - 1} free)" in done.out
    assert "pool blue-v6: fd00:6:: (routers' anycast address of fd00:6::/64) cannot be a pod's" in done.out
    assert "pod annotation ipam.spidernet.io/ippool: not given" in done.out


def test_an_exhausted_pool_is_passed_over_and_told(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue", "10.6.0.10") + make_pool("red", "10.6.1.1-10.6.1.2"))
    orbweaver.record("10.6.0.10", "blue")

    done = orbweaver("explain", "web-d", "--ipv4-pool", "blue", "--ipv4-pool", "red", "-o", "json")

    (slot,) = done.json["slots"]
    assert (done.status, done.json["allowed"], slot["pool"]) == (0, True, "red")
    assert slot["candidates"] == [
        {"pool": "blue", "free": 0, "total": 1},
        {"pool": "red", "free": 2, "total": 2},
    ]
    assert [(one["pool"], one["rule"]) for one in slot["refusals"]] == [("blue", "exhausted")]


def test_addresses_in_quarantine_are_not_free_and_each_is_told(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue", "10.6.0.10-10.6.0.12") + make_pool("spare", "10.6.0.20-10.6.0.21"))
    orbweaver.record("10.6.0.10", "blue")
    for address in ("10.6.0.11", "10.6.0.12", "10.6.0.20"):
        orbweaver.quarantine(address, "02:00:00:00:00:99 answers for it")

    alone = orbweaver("explain", "web-d", "--ipv4-pool", "blue")
    with_spare = orbweaver("explain", "web-d", "--ipv4-pool", "blue", "--ipv4-pool", "spare")

    assert alone.status == 1
    assert "1 are in use and 2 are set aside" in alone.err
    for address in ("10.6.0.11", "10.6.0.12"):
        assert f"pool blue: {address} is set aside for " in alone.err
        assert "02:00:00:00:00:99 answers for it" in alone.err
    assert with_spare.status == 0
    assert "an address of pool spare (1 of 2 free)" in with_spare.out


def test_a_refused_pod_gets_every_reason_and_status_1(orbweaver, make_pool):
    orbweaver.apply(
        make_pool("full", "10.6.0.10")
        + make_pool("off", "10.6.1.1", disable=True)
        + make_pool("elsewhere", "10.6.2.1", nodeName=["n7"])
    )
    orbweaver.record("10.6.0.10", "full")
    pools = [word for name in ("full", "off", "elsewhere", "typo") for word in ("--ipv4-pool", name)]

    done = orbweaver("explain", "web-d", "--node", "n1", *pools)
    as_json = orbweaver("explain", "web-d", "--node", "n1", *pools, "-o", "json")

    assert (done.status, done.out) == (1, "")
    for told in (
        "pool full refused: exhausted: all 1 are in use",
        "pool off refused: ",
        "pool elsewhere refused: node name: spec.nodeName [n7] does not have node n1",
        "pool typo refused: exists",
    ):
        assert told in done.err
    assert (as_json.status, as_json.json["allowed"], as_json.json["error"]["code"]) == (1, False, 101)


def test_reserved_and_taken_addresses_are_not_free(orbweaver, make_pool):
    orbweaver.apply(
        make_pool("blue", default=True)
        + "---\n{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderReservedIP, metadata: {name: r},"
        " spec: {ips: [10.6.0.11-10.6.0.12]}}\n"
    )
    orbweaver.record("10.6.0.10", "blue")

    assert "(7 of 8 free)" in orbweaver("explain", "web-d").out
    assert "reserved by a SpiderReservedIP" in orbweaver("explain", "web-d", "--ip", "10.6.0.11").err
    assert "recorded for pod default/web-a" in orbweaver("explain", "web-d", "--ip", "10.6.0.10").err
    for last in (10, 11):
        as_json = orbweaver("explain", "web-d", "--ip", f"10.6.0.{last}", "-o", "json").json
        assert as_json["error"]["code"] == 102
    assert "10.6.0.13 of pool blue" in orbweaver("explain", "web-d", "--ip", "10.6.0.13").out


def test_the_addresses_of_a_damaged_block_are_not_free(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue", default=True))
    orbweaver.record("10.6.0.10", "blue")
    orbweaver.damage("v4-0a060000")

    done = orbweaver("explain", "web-d")

    assert done.status == 1
    assert "0 are in use and 10 are in blocks that cannot be used (v4-0a060000); mend the blocks" in done.err
    assert "SpiderIPBlock v4-0a060000 is damaged" in done.err


def test_an_address_whose_record_cannot_be_judged_is_not_free(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue", "10.6.0.10-10.6.0.11", default=True))
    orbweaver.record("10.6.0.10", "blue")
    orbweaver.record("10.6.0.11", "blue")
    orbweaver.spoil("10.6.0.10")

    done = orbweaver("explain", "web-d")
    named = orbweaver("explain", "web-d", "--ip", "10.6.0.10")

    assert done.status == named.status == 1
    assert "1 are in use and 1 have a record that cannot be judged" in done.err
    for told in (done, named):
        assert "`orbweaver ip release 10.6.0.10 --force` frees it" in told.err


def test_a_statefulsets_pod_sees_its_own_address_again(orbweaver):
    orbweaver("apply", "-f", str(EXAMPLES))
    for address, pool in (("10.6.168.110", "underlay-v4"), ("fd00:6::a8:7", "underlay-v6")):
        orbweaver.record(address, pool, "default/db-0", container="", owner="StatefulSet/db")

    done = orbweaver("explain", "default/db-0")
    other = orbweaver("explain", "default/db-0", "--no-statefulset")

    assert "eth0 IPv4: 10.6.168.110 of pool underlay-v4, as before" in done.out
    assert "eth0 IPv6: fd00:6::a8:7 of pool underlay-v6, as before" in done.out
    assert "would be given again" in done.out
    assert "an address of pool underlay-v4" in other.out


def test_a_manifest_and_a_network_configuration_stand_in_for_the_real_ones(orbweaver):
    orbweaver("apply", "-f", str(EXAMPLES))
    conf = str(EXAMPLES / "80-underlay.conflist")
    pod = orbweaver.file(
        "{apiVersion: v1, kind: Pod, metadata: {name: x, labels: {app: billing}, annotations:"
        """ {ipam.spidernet.io/ippool: '{"ipv4": ["billing-v4"]}'}}}"""
    )

    by_conf = orbweaver("explain", "web-d", "--conf", conf, "-o", "json").json
    by_pod = orbweaver("explain", "-f", pod, "--conf", conf, "-o", "json").json

    assert [slot["pool"] for slot in by_conf["slots"]] == ["underlay-v4", "underlay-v6"]
    assert by_conf["slots"][0]["source"].startswith("CNI configuration")
    assert [(slot["pool"], slot["ipVersion"]) for slot in by_pod["slots"]] == [("billing-v4", 4)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name a pod"),
        (("a/b/c",), "K8S_POD_NAME"),
        (("web", "--interface", "far-too-long-a-name"), "CNI_IFNAME"),
        (("web", "--ip", "10.6"), "is not an address"),
        (("web", "--no-ipv4", "--no-ipv6"), "at least one family"),
        (("web", "--conf", "nowhere"), "nowhere: cannot be read"),
        (("-f", "nowhere"), "nowhere: cannot be read"),
    ],
)
def test_wrong_questions_get_one_clear_answer(orbweaver, make_pool, arguments, told):
    orbweaver.apply(make_pool("blue", default=True))

    done = orbweaver("explain", *arguments)

    assert (done.status, done.out) == (1, "")
    assert told in done.err


def test_a_broken_annotation_refuses_the_pod_with_its_cni_code(orbweaver, make_pool):
    orbweaver.apply(
        make_pool("blue", default=True) + "---\n{apiVersion: v1, kind: Pod,"
        " metadata: {name: web, annotations: {ipam.spidernet.io/ippool: '{'}}}\n"
    )

    done = orbweaver("explain", "web", "-o", "json")

    assert (done.status, done.json["error"]["code"]) == (1, 100)
    assert "ipam.spidernet.io/ippool" in done.json["error"]["msg"]


def test_a_network_of_another_ipam_is_refused(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue"))
    conf = orbweaver.file('{"name": "x", "type": "bridge", "ipam": {"type": "host-local"}}', "net.conf")

    assert "0 of its plugins have ipam.type spiderpool" in orbweaver("explain", "web", "--conf", conf).err


def test_the_agent_does_what_was_explained(orbweaver, make_pool):
    """The command line as programs of their own, beside a running agent, over the real socket."""
    orbweaver.apply(make_pool("blue", default=True) + make_pool("red", "10.6.1.1", default=True))
    with _agent(orbweaver) as path:
        explained = _program(orbweaver, "explain", "default/web-a", "-o", "json")
        assert explained.returncode == 0, explained.stderr
        told = json.loads(explained.stdout)
        status, result = _cni(path, "ADD")
        address = result["ips"][0]["address"].partition("/")[0]
        shown = json.loads(_program(orbweaver, "ip", "show", address, "-o", "json").stdout)
        assert status == 0
        assert shown["record"]["pool"] == told["slots"][0]["pool"] == "blue"
        kept = _program(orbweaver, "delete", "sp", "blue").stdout
        assert "1 address is in use" in kept
        assert _cni(path, "DEL")[0] == 0
        assert json.loads(_program(orbweaver, "ip", "show", address, "-o", "json").stdout)["state"] == "free"
        deadline = time.monotonic() + 60
        while _program(orbweaver, "get", "sp", "blue").returncode == 0:
            assert time.monotonic() < deadline, "the agent did not let the pool go with its last address"
            time.sleep(0.1)


def test_apply_reads_standard_input(orbweaver, make_pool):
    done = _program(orbweaver, "apply", "-f", "-", feed=make_pool("blue"))
    bad = _program(orbweaver, "apply", "-f", "-", feed="kind: [")

    assert (done.returncode, done.stdout) == (0, "spiderippool.spiderpool.spidernet.io/blue created\n")
    assert bad.returncode == 1
    assert "standard input: document 1, line 1: is not YAML" in bad.stderr


def test_a_damaged_pool_is_named_with_the_reason(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue") + make_pool("red", "10.6.1.1"))
    store = orbweaver.store()
    red = store.get("SpiderIPPool", "red")
    store.update({**red, "spec": {**red["spec"], "ips": ["no address"]}})
    store.close()

    done = _program(orbweaver, "explain", "web", "--ipv4-pool", "blue")

    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "a pool cannot be used" in line]
    assert line.startswith("orbweaver: a pool cannot be used (pool: red, error: ")
    assert "no address" in line


def _program(orbweaver, *arguments, feed=None):
    return subprocess.run(
        [sys.executable, "-P", "-m", "cni.command.main", *arguments],
        env={**os.environ, "ORBWEAVER_DATA": str(orbweaver.data)},
        input=feed,
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def _agent(orbweaver):
    path = orbweaver.directory / "agent.sock"
    command = [
        sys.executable,
        "-P",
        "-m",
        "cni.command.main",
        "agent",
        "--standalone",
        "--metrics-port",
        "-1",
    ]
    with subprocess.Popen(
        [*command, "--socket", str(path), "--data", str(orbweaver.data)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 180
            while not path.exists():
                assert process.poll() is None, "the agent ended"
                assert time.monotonic() < deadline, "the agent does not listen"
                time.sleep(0.02)
            yield path
        finally:
            process.terminate()
            process.wait(180)


def _cni(path, command):
    """One exchange with the front end, as the shim has it."""
    environment = {
        "plugin": "spiderpool",
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/var/run/netns/x",
        "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-a",
    }
    conf = {"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "ipam": {"type": "spiderpool"}}
    body = b"".join(f"{key}={value}".encode() + b"\0" for key, value in environment.items())
    body += b"\0" + json.dumps(conf).encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(120)
        client.connect(str(path))
        client.sendall(b"OWC1" + struct.pack(">I", len(body)) + body)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer[:4] == b"OWR1"
    return struct.unpack(">I", answer[4:8])[0], json.loads(answer[12:] or b"{}")


@pytest.mark.parametrize("name", ["", "/", "web/", "/web"])
def test_a_name_of_no_pod_is_refused(orbweaver, name):
    done = orbweaver("explain", name)

    assert (done.status, done.out) == (1, "")
    assert f"{name!r} names no pod" in done.err


def test_what_a_pod_asks_for_in_vain_is_a_warning(orbweaver, make_pool):
    annotations = {
        "ipam.spidernet.io/ippool": '{"ipv4": ["blue"], "interface": "eth0"}',
        "ipam.spidernet.io/routes": '[{"dst": "10.9.0.0/16", "gw": "10.8.0.1"}]',
    }
    web = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "annotations": annotations}}
    orbweaver.apply(make_pool("blue") + "---\n" + json.dumps(web) + "\n")

    done = orbweaver("explain", "default/web", "-o", "json")

    assert done.status == 0
    ignored, unreached = done.json["warnings"]
    assert '"interface" is no key of it' in ignored
    assert "the route to 10.9.0.0/16 is left out" in unreached
    assert f"warning: {unreached}" in orbweaver("explain", "default/web").out


def test_an_exhausted_pool_whose_address_is_coming_back_would_let_the_pod_wait(orbweaver, make_pool):
    orbweaver.apply(make_pool("blue", "10.6.0.10-10.6.0.11", default=True))
    orbweaver.record("10.6.0.10", "blue", "default/old")
    orbweaver.record("10.6.0.11", "blue", "default/stays")
    store = orbweaver.store()
    metadata = {"name": "old", "namespace": "default", "finalizers": ["test/containers"]}
    store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}})
    staying = orbweaver("explain", "web-d")
    store.delete("Pod", "old", "default")
    store.close()

    waiting = orbweaver("explain", "web-d")

    assert (staying.status, waiting.status) == (1, 1)
    assert "wait" not in staying.err
    told = "an ADD would wait, for half of its time at most, for 10.6.0.10 (pod default/old is Terminating)"
    assert told in waiting.err
