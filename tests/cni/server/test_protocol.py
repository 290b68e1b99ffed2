"""The CNI protocol: every kind of bad input gets its code and names the field, every version its own form."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.allocation.messages import AddResult, Assigned, RouteTo, Sandbox
from actors.errors import InvalidRequest, NoAddress, OrbweaverError
from cni.server import protocol
from cni.server.protocol import VERSIONS, CniRequest, failure, parse, success, version_of, versions

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/run/netns/x",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0;K8S_POD_UID=u1",
    "CNI_PATH": "/opt/cni/bin",
}
RESULT = AddResult(
    (
        Assigned("eth0", 4, "10.6.0.7/16", "10.6.0.1", "blue", 0),
        Assigned("eth0", 6, "fd00::7/64", "", "blue6", 0),
    ),
    (RouteTo("0.0.0.0/0", "10.6.0.1"), RouteTo("10.7.0.0/16", "")),
)


def conf(**more: Any) -> bytes:
    body = {"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "ipam": {"type": "spiderpool"}} | more
    return json.dumps({key: value for key, value in body.items() if value is not ...}).encode()


def ask(command: str = "ADD", stdin: bytes | None = None, **environment: str | None) -> CniRequest:
    whole = ENVIRONMENT | {"CNI_COMMAND": command} | environment
    return parse(
        {key: value for key, value in whole.items() if value is not None}, conf() if stdin is None else stdin
    )


def test_what_an_add_is_understood_as():
    stdin = conf(
        ipam={"default_ipv4_ippool": ["a", "b*"], "default_ipv6_ippool": ["c"], "clean_gateway": True},
        runtimeConfig={"ips": ["10.6.0.9/16"]},
        args={"cni": {"ips": ["fd00::9"]}},
    )
    request = ask(stdin=stdin)

    assert request.sandbox == Sandbox("c1", "eth0", "prod", "web-0", "u1", "/run/netns/x")
    assert (request.network, request.named, request.asks.interface) == ("net", True, "eth0")
    assert (request.asks.ipv4_pools, request.asks.ipv6_pools) == (("a", "b*"), ("c",))
    assert request.asks.clean_gateway
    assert request.asks.exact == ((4, 0x0A060009), (6, (0xFD00 << 112) + 9))


def test_without_kubernetes_the_container_is_the_pod():
    request = ask(CNI_ARGS=None)

    assert (request.sandbox.namespace, request.sandbox.pod, request.named) == ("default", "c1", False)


@pytest.mark.parametrize(
    "text", ["IP=10.6.0.9", "IP=10.6.0.9/16", "IP=10.6.0.9,fd00::9", "K8S_POD_NAME=a;IP=10.6.0.9;"]
)
def test_addresses_asked_for_in_cni_args(text: str):
    assert ask(CNI_ARGS=text).asks.exact[0] == (4, 0x0A060009)


@pytest.mark.parametrize(
    "command, environment, stdin, code, named",
    [
        # Missing or broken environment: 4 (specification, "Error").
        (None, {"CNI_COMMAND": None}, conf(), 4, "CNI_COMMAND"),
        ("add", {}, conf(), 4, "CNI_COMMAND"),
        ("ADD", {"CNI_CONTAINERID": None}, conf(), 4, "CNI_CONTAINERID"),
        ("ADD", {"CNI_CONTAINERID": "../../etc"}, conf(), 4, "CNI_CONTAINERID"),
        ("ADD", {"CNI_CONTAINERID": "a\n"}, conf(), 4, "CNI_CONTAINERID"),
        ("ADD", {"CNI_IFNAME": None}, conf(), 4, "CNI_IFNAME"),
        ("ADD", {"CNI_IFNAME": "sixteen-bytes-xx"}, conf(), 4, "CNI_IFNAME"),
        ("ADD", {"CNI_IFNAME": "a/b"}, conf(), 4, "CNI_IFNAME"),
        ("ADD", {"CNI_IFNAME": "a:b"}, conf(), 4, "CNI_IFNAME"),
        ("ADD", {"CNI_IFNAME": "a b"}, conf(), 4, "CNI_IFNAME"),
        ("ADD", {"CNI_IFNAME": ".."}, conf(), 4, "CNI_IFNAME"),
        ("ADD", {"CNI_NETNS": None}, conf(), 4, "CNI_NETNS"),
        ("ADD", {"CNI_NETNS": ""}, conf(), 4, "CNI_NETNS"),
        ("ADD", {"CNI_ARGS": "K8S_POD_NAME"}, conf(), 4, "CNI_ARGS"),
        ("ADD", {"CNI_ARGS": "=x"}, conf(), 4, "CNI_ARGS"),
        ("ADD", {"CNI_ARGS": "K8S_POD_NAME=a/b"}, conf(), 4, "K8S_POD_NAME"),
        ("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE= a"}, conf(), 4, "K8S_POD_NAMESPACE"),
        ("ADD", {"CNI_CONTAINERID": "x" * 254}, conf(), 4, "CNI_CONTAINERID"),
        ("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=Web;K8S_POD_NAME=a"}, conf(), 4, "K8S_POD_NAMESPACE"),
        ("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=..;K8S_POD_NAME=a"}, conf(), 4, "K8S_POD_NAMESPACE"),
        ("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=a.b;K8S_POD_NAME=a"}, conf(), 4, "RFC 1123 label"),
        ("ADD", {"CNI_ARGS": f"K8S_POD_NAMESPACE={'a' * 64}"}, conf(), 4, "63"),
        ("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=a;K8S_POD_NAME=.."}, conf(), 4, "K8S_POD_NAME "),
        ("ADD", {"CNI_ARGS": "K8S_POD_NAMESPACE=a;K8S_POD_NAME=Web"}, conf(), 4, "RFC 1123 subdomain"),
        ("ADD", {"CNI_ARGS": f"K8S_POD_NAMESPACE=a;K8S_POD_NAME={'a' * 254}"}, conf(), 4, "253"),
        ("ADD", {"CNI_ARGS": "K8S_POD_NAME=.."}, conf(), 4, "K8S_POD_NAME "),
        ("ADD", {"CNI_ARGS": f"K8S_POD_NAME={'A' * 254}"}, conf(), 4, "253"),
        ("ADD", {"CNI_ARGS": f"K8S_POD_UID={'1' * 254}"}, conf(), 4, "K8S_POD_UID"),
        ("DEL", {"CNI_CONTAINERID": ""}, conf(), 4, "CNI_CONTAINERID"),
        ("DEL", {"CNI_IFNAME": ""}, conf(), 4, "CNI_IFNAME"),
        ("CHECK", {"CNI_CONTAINERID": ""}, conf(prevResult={}), 4, "CNI_CONTAINERID"),
        # Content that cannot be decoded: 6.
        ("ADD", {}, b"", 6, "standard input"),
        ("ADD", {}, b"{", 6, "standard input"),
        ("ADD", {}, b"[]", 6, "standard input"),
        ("ADD", {}, b"null", 6, "standard input"),
        ("ADD", {}, b"\xff\xfe\x00", 6, "standard input"),
        ("ADD", {}, b"[" * 100_000, 6, "standard input"),
        ("ADD", {}, b'{"a":' * 100_000, 6, "standard input"),
        ("ADD", {}, b"1" * 10_000, 6, "standard input"),
        ("GC", {}, b"{", 6, "standard input"),
        # Versions: 1.
        ("ADD", {}, conf(cniVersion=...), 1, "no cniVersion"),
        ("ADD", {}, conf(cniVersion="0.2.0"), 1, "'0.2.0'"),
        ("ADD", {}, conf(cniVersion="1.2.0"), 1, "'1.2.0'"),
        ("ADD", {}, conf(cniVersion="9"), 1, "'9'"),
        ("ADD", {}, conf(cniVersion=1.0), 1, "cniVersion"),
        ("ADD", {}, conf(cniVersion=["1.0.0"]), 1, "cniVersion"),
        ("ADD", {}, conf(cniVersion={}), 1, "cniVersion"),
        ("CHECK", {}, conf(cniVersion="0.3.1"), 1, "CHECK"),
        ("GC", {}, conf(cniVersion="1.0.0"), 1, "GC"),
        ("STATUS", {}, conf(cniVersion="1.0.0"), 1, "STATUS"),
        # Network configuration: 7.
        ("ADD", {}, conf(name=...), 7, '"name"'),
        ("ADD", {}, conf(name=""), 7, '"name"'),
        ("ADD", {}, conf(name=5), 7, '"name"'),
        ("ADD", {}, conf(name="a/b"), 7, '"name"'),
        ("ADD", {}, conf(name="-a"), 7, '"name"'),
        ("ADD", {}, conf(name="x" * 100_000), 7, "253"),
        ("ADD", {}, conf(ipam=[]), 7, "network net: ipam is []"),
        ("ADD", {}, conf(ipam={"default_ipv4_ippool": "blue"}), 7, "default_ipv4_ippool"),
        ("ADD", {}, conf(ipam={"default_ipv4_ippool": [""]}), 7, "default_ipv4_ippool"),
        ("ADD", {}, conf(ipam={"default_ipv6_ippool": [5]}), 7, "default_ipv6_ippool"),
        ("ADD", {}, conf(ipam={"clean_gateway": "yes"}), 7, "clean_gateway"),
        ("ADD", {"CNI_ARGS": "IP=10.6.0"}, conf(), 7, "IP in CNI_ARGS"),
        ("ADD", {"CNI_ARGS": "IP=010.6.0.1"}, conf(), 7, "IP in CNI_ARGS"),
        ("ADD", {}, conf(runtimeConfig={"ips": "10.6.0.9"}), 7, "runtimeConfig.ips"),
        ("ADD", {}, conf(runtimeConfig={"ips": ["x"]}), 7, "runtimeConfig.ips"),
        ("ADD", {}, conf(args={"cni": {"ips": [5]}}), 7, "args.cni.ips"),
        # Nothing is done with thousands of them, not even read: addresses can be chosen to have one hash.
        ("ADD", {}, conf(runtimeConfig={"ips": ["x"] * 40_000}), 7, "asks for 40000 addresses; it may be 16"),
        ("ADD", {"CNI_ARGS": "IP=" + "x," * 4000}, conf(), 7, "asks for 4000 addresses"),
        ("CHECK", {}, conf(), 7, "prevResult"),
        ("CHECK", {}, conf(prevResult=[]), 7, "prevResult"),
        ("CHECK", {}, conf(prevResult={"ips": {}}), 7, "prevResult.ips"),
        ("CHECK", {}, conf(prevResult={"ips": [{}]}), 7, "prevResult.ips"),
        ("CHECK", {}, conf(prevResult={"ips": [{"address": "x/24"}]}), 7, "prevResult.ips"),
        ("GC", {}, conf(), 7, "cni.dev/valid-attachments"),
        ("GC", {}, conf(**{"cni.dev/valid-attachments": {}}), 7, "cni.dev/valid-attachments"),
        (
            "GC",
            {},
            conf(**{"cni.dev/valid-attachments": [{"containerID": "a"}]}),
            7,
            "cni.dev/valid-attachments",
        ),
    ],
)
def test_bad_input_gets_its_code_and_names_the_field(
    command: str | None, environment: dict[str, str | None], stdin: bytes, code: int, named: str
):
    with pytest.raises(InvalidRequest) as refused:
        ask(command or "", stdin, **environment)

    assert refused.value.cni_code == code
    assert named in refused.value.message
    error = json.loads(failure(version_of(stdin), refused.value))
    assert error["cniVersion"] == version_of(stdin)
    assert (error["code"], error["msg"]) == (code, refused.value.message)


@pytest.mark.parametrize(
    "stdin",
    [
        conf(ipam=[]),
        conf(ipam={"default_ipv4_ippool": 5}),
        conf(runtimeConfig={"ips": 5}),
        conf(prevResult=5),
    ],
)
def test_a_del_is_not_stopped_by_a_configuration_that_it_does_not_need(stdin: bytes):
    request = ask("DEL", stdin, CNI_NETNS=None, CNI_ARGS=None)

    assert (request.sandbox.container, request.sandbox.interface) == ("c1", "eth0")


@pytest.mark.parametrize(
    "environment, stdin, told",
    [
        ({}, conf(cniVersion=...), "no cniVersion"),
        ({}, conf(cniVersion="0.2.0"), "'0.2.0'"),
        ({}, conf(cniVersion="9.9"), "'9.9'"),
        ({}, conf(cniVersion=["1.0.0"]), "cniVersion"),
        ({}, conf(name=...), '"name"'),
        ({}, conf(name=5), '"name"'),
        ({}, b"", "not JSON"),
        ({}, b"{", "not JSON"),
        ({}, b"[" * 100_000, "nested deeper than 32"),
        ({}, b"null", "must be a JSON object"),
        ({"CNI_ARGS": "IgnoreUnknown"}, conf(), "'IgnoreUnknown'"),
        ({"CNI_ARGS": "=x;K8S_POD_NAME"}, conf(), "'=x'"),
        ({"CNI_ARGS": "K8S_POD_NAME=a/b"}, conf(), "K8S_POD_NAME"),
        ({"CNI_ARGS": "K8S_POD_NAME=a;K8S_POD_NAMESPACE= b"}, conf(), "K8S_POD_NAMESPACE"),
    ],
)
def test_a_del_goes_by_container_and_interface_and_tells_what_it_passed_over(
    environment: dict[str, str], stdin: bytes, told: str
):
    request = ask("DEL", stdin, **{"CNI_ARGS": None, **environment})

    assert (request.sandbox.container, request.sandbox.interface) == ("c1", "eth0")
    assert (request.sandbox.pod, request.named) == ("c1", False), "a name that is none is no name"
    assert told in request.ignored[0]


def test_a_del_keeps_what_it_understands_of_its_arguments():
    request = ask("DEL", CNI_ARGS="IgnoreUnknown;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0;K8S_POD_UID=u1;=")

    assert request.sandbox == Sandbox("c1", "eth0", "prod", "web-0", "u1", "/run/netns/x")
    assert request.named
    assert len(request.ignored) == 2


def test_what_is_told_of_a_del_is_bounded():
    request = ask("DEL", CNI_ARGS=";".join(f"{'x' * 1000}{number}" for number in range(100)))

    assert len(request.ignored) <= 8
    assert all(len(note) <= 210 for note in request.ignored)


@pytest.mark.parametrize("name", ["CNI_ARGS", "CNI_NETNS"])
@pytest.mark.parametrize("length", [8193, 1_000_000])
def test_a_variable_without_end_is_not_read_and_stops_no_del(
    name: str, length: int, monkeypatch: pytest.MonkeyPatch
):
    """Taking a megabyte of arguments apart would hold up everybody else on the loop for a second."""
    read: list[str] = []
    known = protocol.parse_arguments

    def parse_arguments(text: str) -> dict[str, str]:
        read.append(text)
        return known(text)

    monkeypatch.setattr(protocol, "parse_arguments", parse_arguments)
    text = "K8S_POD_NAME=web-0" + ";" * (length - len("K8S_POD_NAME=web-0"))

    request = ask("DEL", None, **{"CNI_ARGS": "K8S_POD_NAME=a", name: text})
    assert (request.sandbox.container, request.sandbox.interface) == ("c1", "eth0")
    assert request.ignored == (f"{name} has {length} characters; it may have 8192 at most",)
    assert request.named == (name != "CNI_ARGS")
    assert sum(map(len, read)) < 100
    for command in ("ADD", "CHECK"):
        with pytest.raises(InvalidRequest, match=f"{name} has {length} characters") as refused:
            ask(command, None, **{name: text})
        assert refused.value.cni_code == 4
    assert protocol.named_in({"CNI_CONTAINERID": "c1", "CNI_COMMAND": "DEL", name: text}).container == "c1"


def test_a_del_that_is_in_order_has_nothing_to_tell():
    assert ask("DEL").ignored == ()


@pytest.mark.parametrize(
    "version, told", [("0.1.0", "0.1.0"), ("9.9.9", "9.9.9"), ('a"b', "1.1.0"), (5, "1.1.0")]
)
def test_an_error_carries_the_version_that_was_asked_for(version: object, told: str):
    assert version_of(conf(cniVersion=version)) == told


def test_gc_with_null_names_no_valid_attachment():
    assert ask("GC", conf(**{"cni.dev/valid-attachments": None})).valid == ()


@pytest.mark.parametrize(
    "command, more",
    [
        ("CHECK", {"prevResult": {"ips": []}}),
        ("GC", {"cni.dev/valid-attachments": []}),
    ],
)
def test_check_and_gc_do_not_read_what_only_an_add_needs(command: str, more: dict[str, Any]):
    broken: list[Any] = [[], {"default_ipv4_ippool": 5}, {"detectOptions": 5}]
    for ipam in broken:
        assert ask(command, conf(ipam=ipam, runtimeConfig={"ips": 5}, **more)).network == "net"


@pytest.mark.parametrize(
    "container, arguments",
    [
        ("x" * 253, "K8S_POD_NAMESPACE=a-1;K8S_POD_NAME=web.0-a;K8S_POD_UID=u"),
        ("c1", f"K8S_POD_NAMESPACE={'a' * 63};K8S_POD_NAME={'a' * 253}"),
        # podman gives the container's name, and no namespace.
        ("c1", "IgnoreUnknown=1;K8S_POD_NAME=Jolly_einstein"),
        ("Some_Container.1", "K8S_POD_NAMESPACE=;K8S_POD_NAME="),
        ("Some_Container.1", None),
    ],
)
def test_names_that_an_add_may_have(container: str, arguments: str | None):
    assert ask(CNI_CONTAINERID=container, CNI_ARGS=arguments).sandbox.container == container


@pytest.mark.parametrize("command", ["DEL", "CHECK"])
def test_names_that_an_add_may_not_have_are_still_found_and_released(command: str):
    more = {"prevResult": {"ips": []}, "name": "a name"}
    arguments = f"K8S_POD_NAMESPACE=Web;K8S_POD_NAME=..;K8S_POD_UID={'1' * 300}"

    request = ask(command, conf(**more), CNI_CONTAINERID="x" * 300, CNI_ARGS=arguments)

    assert (request.sandbox.container, request.sandbox.key) == ("x" * 300, "Web/..")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_has_the_form_of_its_version(version: str):
    request = ask(stdin=conf(cniVersion=version))

    found = json.loads(success(request, RESULT))

    ips: list[dict[str, str]] = [{"address": "10.6.0.7/16", "gateway": "10.6.0.1"}, {"address": "fd00::7/64"}]
    if version in (
        "0.3.0",
        "0.3.1",
        "0.4.0",
    ):  # an entry has its family's number there, and not any more since 1.0.0
        ips[0]["version"], ips[1]["version"] = "4", "6"
    assert found == {
        "cniVersion": version,
        "ips": ips,
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.6.0.1"}, {"dst": "10.7.0.0/16"}],
        "dns": {},
    }


@pytest.mark.parametrize(
    "command, known",
    [
        ("ADD", VERSIONS),
        ("DEL", VERSIONS),
        ("CHECK", VERSIONS[2:]),
        ("GC", VERSIONS[4:]),
        ("STATUS", VERSIONS[4:]),
    ],
)
def test_since_when_each_command_is_known(command: str, known: tuple[str, ...]):
    more = {"prevResult": {"ips": []}, "cni.dev/valid-attachments": []}
    for version in VERSIONS:
        stdin = conf(cniVersion=version, **more)
        if version in known:
            assert ask(command, stdin).version == version
        else:
            with pytest.raises(InvalidRequest, match=f"has no {command}"):
                ask(command, stdin)


@pytest.mark.parametrize("version", [*VERSIONS, "0.1.0", "2.0.0"])
def test_version_echoes_what_was_asked_and_lists_what_there_is(version: str):
    request = parse({"CNI_COMMAND": "VERSION"}, json.dumps({"cniVersion": version}).encode())

    assert json.loads(versions(request)) == {"cniVersion": version, "supportedVersions": list(VERSIONS)}


def test_the_addresses_of_a_previous_result_are_compared_by_value():
    stdin = conf(prevResult={"ips": [{"address": "FD00:0:0::7/64"}, {"address": "10.6.0.7/16"}]})

    assert ask("CHECK", stdin).previous == ("fd00::7/64", "10.6.0.7/16")


def test_a_refusal_says_everything_that_the_error_does():
    error = NoAddress("nothing is free", details=("pool a refused", "pool b refused"))

    assert json.loads(failure("0.4.0", error)) == {
        "cniVersion": "0.4.0",
        "code": 101,
        "msg": "nothing is free",
        "details": "pool a refused\npool b refused",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(VERSIONS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CONFIGURATION = st.fixed_dictionaries(
    {"cniVersion": st.sampled_from(VERSIONS)},
    optional={
        "name": JSON,
        "ipam": JSON
        | st.dictionaries(
            st.sampled_from(["default_ipv4_ippool", "default_ipv6_ippool", "clean_gateway"]), JSON
        ),
        "runtimeConfig": JSON | st.fixed_dictionaries({"ips": JSON}),
        "args": JSON | st.fixed_dictionaries({"cni": JSON | st.fixed_dictionaries({"ips": JSON})}),
        "prevResult": JSON
        | st.fixed_dictionaries({"ips": JSON | st.lists(st.fixed_dictionaries({"address": JSON}))}),
        "cni.dev/valid-attachments": JSON,
    },
)
TEXT = st.text(max_size=30) | st.text(string.printable, max_size=30)
VARIABLES = st.fixed_dictionaries(
    {"CNI_COMMAND": st.sampled_from([*protocol.COMMANDS, "x"])},
    optional={
        "CNI_CONTAINERID": st.just("c1") | TEXT,
        "CNI_IFNAME": st.just("eth0") | TEXT,
        "CNI_NETNS": st.just("/run/x") | TEXT,
        "CNI_ARGS": TEXT
        | st.builds("IP={}".format, TEXT)
        | st.builds("K8S_POD_NAME={};x={}".format, TEXT, TEXT),
    },
)


@given(VARIABLES, st.binary() | CONFIGURATION.map(lambda body: json.dumps(body).encode()))
@example({"CNI_COMMAND": "ADD"}, b'{"cniVersion":"\\ud800"}')
@example({"CNI_COMMAND": "VERSION"}, b"")
def test_whatever_comes_in_is_a_request_or_refused(environment: dict[str, str], stdin: bytes):
    found: CniRequest | InvalidRequest
    try:
        found = parse(environment, stdin)
    except InvalidRequest as error:
        found = error

    if isinstance(found, InvalidRequest):
        assert found.cni_code in (1, 4, 6, 7)
        assert json.loads(failure(version_of(stdin), found))["msg"]
    else:
        assert found.command == environment["CNI_COMMAND"]
        if found.command in ("ADD", "DEL", "CHECK"):
            assert found.sandbox.container
            assert found.sandbox.pod
            assert "/" not in found.sandbox.pod + found.sandbox.namespace
            assert json.loads(success(found, RESULT))["cniVersion"] == found.version


@given(st.dictionaries(st.text(), st.text()), st.binary())
def test_arbitrary_bytes_raise_nothing_else(environment: dict[str, str], stdin: bytes):
    with pytest.raises(OrbweaverError) as refused:
        parse(environment, stdin)

    assert isinstance(refused.value, InvalidRequest)


@pytest.mark.parametrize(
    "arguments, more, mac",
    [
        ("", {}, ""),
        (";MAC=02:00:00:00:00:0A", {}, "02:00:00:00:00:0a"),
        ("", {"runtimeConfig": {"mac": "02:00:00:00:00:0b"}}, "02:00:00:00:00:0b"),
        ("", {"args": {"cni": {"mac": "02:00:00:00:00:0c"}}}, "02:00:00:00:00:0c"),
        (
            "",
            {"prevResult": {"interfaces": [{"name": "eth0"}, {"name": "eth0", "mac": "02:00:00:00:00:0d", "sandbox": "/n"}]}},
            "02:00:00:00:00:0d",
        ),
        (";MAC=nonsense", {"runtimeConfig": [], "args": 7, "prevResult": {"interfaces": 7}}, ""),
    ],
)  # fmt: skip
def test_the_mac_of_an_interface_is_taken_from_where_the_request_tells_it(
    arguments: str, more: dict[str, Any], mac: str
):
    assert ask(CNI_ARGS="K8S_POD_NAME=web" + arguments, stdin=conf(**more)).asks.mac == mac


@pytest.mark.parametrize("name", ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_ARGS"])
@pytest.mark.parametrize("text", ["x" * 9000, "\x1b[2J" * 3000, "K8S_POD_NAME=" + "/" * 9000])
def test_a_refusal_is_short_whatever_the_environment_says(name: str, text: str):
    environment = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/x", name: text,
    }  # fmt: skip
    with pytest.raises(InvalidRequest) as refused:
        parse(environment, b'{"cniVersion": "1.0.0", "name": "net", "ipam": {}}')

    assert len(str(refused.value)) < 600
    assert str(refused.value).isprintable()


def test_each_configuration_is_asked_for_what_it_says_itself():
    """However often it and others come, and however long it is."""
    for _ in range(2):
        for name in ("blue", "green"):
            for padding in ("", "x" * 20_000):
                ipam = {"type": "spiderpool", "default_ipv4_ippool": [name]}
                request = ask(stdin=conf(ipam=ipam, padding=padding))
                assert request.asks.ipv4_pools == (name,)
        with pytest.raises(InvalidRequest, match="default_ipv4_ippool"):
            ask(stdin=conf(ipam={"type": "spiderpool", "default_ipv4_ippool": 7}))
        assert ask(stdin=conf(name="a")).network == "a"
        assert ask(stdin=conf(name="b")).network == "b"


def test_what_many_pods_say_each_for_itself_is_read_once_and_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch,
):
    """As with addresses of their own in `runtimeConfig`."""
    decoded: list[bytes] = []
    read = protocol._read

    def counted(stdin: bytes) -> Any:
        decoded.append(stdin)
        return read(stdin)

    monkeypatch.setattr(protocol, "_read", counted)
    each = [conf(runtimeConfig={"ips": [f"10.6.0.{number}"]}) for number in range(200)]
    for number, stdin in enumerate(each):
        assert ask(stdin=stdin).asks.exact == ((4, 0x0A060000 + number),)

    assert decoded == each
    assert len(protocol._sections) <= 64


def test_the_end_of_a_line_behind_a_configuration_means_nothing(monkeypatch: pytest.MonkeyPatch):
    """The shim sends one. The texts inside are not looked at one by one for it."""

    def one_by_one(*_: Any, **__: Any) -> None:
        raise AssertionError("the texts are looked at one by one")

    monkeypatch.setattr("actors.resources.json_text._check_texts", one_by_one)

    assert ask(stdin=conf() + b"\n") == ask(stdin=conf())
    assert version_of(conf(cniVersion="0.4.0") + b"\n") == "0.4.0"
