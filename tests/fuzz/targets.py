"""Everything that reads what others wrote, as functions of one text.

What must always hold: a reader ends with a value, or with an error of ours whose text can be shown and is short. A target
raises nothing else; it returns what became of the input, without what is particular to it, so that inputs can be told
apart by their outcome.
"""

from __future__ import annotations

import json
import re
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from actors.allocation import messages as _registered  # noqa: F401 - with the wire
from actors.audit.pools import states
from actors.decisions import annotations as known
from actors.decisions.attachment_requests import read_attachments, read_default_attachment
from actors.decisions.candidates import AddressRequest
from actors.decisions.chained_conf import WantedConf, conf_for, read_wanted
from actors.decisions.node_cni import node_cni
from actors.decisions.overlaps import Extent, refusal, shared
from actors.decisions.plan import plan
from actors.decisions.settings import Settings
from actors.errors import OrbweaverError
from actors.networks.attachment import attachment, is_as_wanted
from actors.networks.claims import decide
from actors.resources.admission import SPIDERPOOL, admit
from actors.resources.blocks.block import Block
from actors.resources.blocks.record import Record
from actors.resources.coordinator import SpiderCoordinator
from actors.resources.intervals import IntervalSet
from actors.resources.ipam_claim import IPAMClaim
from actors.resources.ippool import IPPool
from actors.resources.json_text import has_encoding, read_json, read_shallow, showable, without_depths
from actors.resources.multus_config import KIND, MultusConfig
from actors.resources.namespace import Namespace
from actors.resources.network_attachment import NetworkAttachment
from actors.resources.node import Node
from actors.resources.pod import NETWORK_STATUS, Pod
from actors.resources.pool_status import DIGEST, digest_of, foreign_allocations
from actors.resources.reservedip import ReservedIP
from actors.resources.statefulset import StatefulSet
from actors.resources.subnet import SpiderSubnet
from actors.resources.subnet_pools import misfit, misplaced
from actors.resources.virtualmachine import VirtualMachine
from actors.resources.workload import Workload, workload_excerpt
from actors.review.messages import ReviewVerdict
from actors.review.subnet_review import lost
from actors.runtime import wire
from actors.store.lifecycle import encoded
from actors.subnets.pool_objects import adopted_pool
from actors.subnets.shares import SubnetShares, SubnetUse, status_of
from cni.admission.admission_review import read_question, write_answer
from cni.admission.reviews import network_review, overlap_review, placement_review
from cni.dataplane.coordinator.settings import read_settings, without_wrong_fields
from cni.dataplane.ifacer.settings import read_ifacer_settings
from cni.dataplane.probing import frames
from cni.networks.attaching import NodeConfiguration
from cni.networks.attachment_cache import read_note
from cni.networks.execution import read_refusal
from cni.networks.network_list import NetworkList, derive, judge_network_list, read_network_list, type_of
from cni.networks.results import in_version, read_result, status, with_default_routes
from cni.server import protocol
from cni.server.libcni_cache import read_notes
from cni.takeover.holders import interface_of
from cni.takeover.host_local import ranges as host_local
from cni.takeover.networks import Network, network_of
from cni.takeover.whereabouts import ranges as whereabouts
from cni.takeover.whereabouts.objects import ip_pool_of

Target = Callable[[str], str]
BLUE = IPPool.from_object(
    {"metadata": {"name": "blue"}, "spec": {"subnet": "10.6.0.0/16", "ips": ["10.6.0.1-10.6.0.9"]}}
)
_BASE = 0x0A060000
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9]+|is .{1,120}?,")
_LONGEST = 8_000


def _outcome(work: Callable[[], Any]) -> str:
    try:
        value = work()
    except OrbweaverError as error:
        text = str(error)
        assert text.isprintable() or "\n" in text, ascii(text)
        assert len(text) <= _LONGEST, len(text)
        return f"refused: {type(error).__name__} {_PARTICULAR.sub('', text)[:160]}"
    text = repr(value)
    text.encode()  # whatever it is, it can be logged
    return f"value: {type(value).__name__} {len(text).bit_length()}"


def _of_pod(key: str, read: Callable[[Pod], Any]) -> Target:
    return lambda text: _outcome(lambda: read(Pod("shop", "web-0", "u", annotations={key: text})))


def _planned(key: str) -> Target:
    def read(pod: Pod) -> Any:
        pools = dict.fromkeys(("blue", "blue-1", "red"), BLUE)
        return plan(pod, None, None, pools, AddressRequest(), Settings(networks_annotated=True)).reasons()

    return _of_pod(key, read)


def _subnets(key: str) -> Target:
    def read(pod: Pod) -> Any:
        return known.read_subnets("pod", {known.POD_SUBNET: '{"ipv4":["floor"]}', **pod.annotations})

    return _of_pod(key, read)


def _of_namespace(text: str) -> str:
    pod = Pod("shop", "web-0")
    namespace = Namespace("shop", annotations={known.NAMESPACE_POOLS[4]: text})
    return _outcome(lambda: known.read_namespace_pools(pod, namespace))


def _object(parse: Callable[[Mapping[str, Any]], Any]) -> Target:
    """A whole object, as the API server or a file gives it; it has metadata, which no store would be without."""

    def target(text: str) -> str:
        try:
            obj = read_shallow(text.encode(errors="surrogatepass"))
        except ValueError:
            return "no JSON"
        if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
            return "no object"
        return _outcome(lambda: parse(obj))

    return target


def _workload(obj: Mapping[str, Any]) -> Workload:
    """As a list cuts it down, and whole: the same."""
    found = Workload.from_object(obj)
    assert Workload.from_object(workload_excerpt(obj)) == found
    return found


def _block(field: str) -> Target:
    good = Block(
        4,
        0x0A060000,
        {0x0A060001: Record("blue", "shop/web-0", "u", "c1", "eth0", "n1", "", "2025-01-31T12:00:00Z")},
        {0x0A060002: 1738324800.0},
    ).to_object()

    def target(text: str) -> str:
        obj = {**good, "spec": {**good["spec"], field: text}}
        return _outcome(lambda: encoded(Block.from_object(obj).to_object()))

    return target


def _beside(records: str, beside: set[int]) -> str:
    """A block in which one entry is somebody's: the records beside it are read whatever that is, and it is written as often
    as anybody likes."""
    obj = Block(4, _BASE).to_object()
    obj["spec"]["records"] = records

    def read() -> Block:
        block = Block.from_object(obj)
        assert {value - _BASE for value in block.records} >= beside, block.records
        assert len(block.records) + len(block.unjudged) == len(beside) + 1
        assert Block.from_object(json.loads(encoded(block.to_object()))).records == block.records
        return block

    outcome = _outcome(lambda: encoded(read().to_object()))
    assert outcome.startswith("value"), outcome
    return outcome


def _entry(text: str) -> str:
    if " " in text:
        return "more than one"
    head = "#shop/:blue:eth0:n1:::: 1:0:web-1:u1:c1:~69200000"
    return _beside(f"{head} 5:{text} 9:0:web-9:u9:c9:~69200000", {1, 9})


def _member(text: str) -> str:
    try:
        read_json(without_depths(text), longest=1 << 20, texts_as_they_are=True)
    except ValueError:
        return "no JSON"
    good = '{"pool":"blue","pod":"shop/web-1"}'
    return _beside(f'{{"10.6.0.1":{good},"10.6.0.5":{text},"10.6.0.9":{good}}}', {1, 9})


def _stdin(text: str) -> str:
    data = text.encode(errors="surrogatepass")
    protocol.version_of(data)
    for command in ("DEL", "CHECK", "GC"):
        _outcome(partial(protocol.parse, ENVIRONMENT | {"CNI_COMMAND": command}, data))
    return _outcome(lambda: protocol.parse(ENVIRONMENT, data))


def _environment(text: str) -> str:
    environment = dict(part.partition("=")[::2] for part in text.split("\n"))
    stdin = b'{"cniVersion":"1.0.0","name":"net","ipam":{}}'
    protocol.named_in(environment)
    _outcome(lambda: protocol.environment_in(text.encode(errors="surrogatepass")))
    return _outcome(lambda: protocol.parse(environment, stdin))


def _note(text: str) -> str:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        (Path(directory) / "note").write_bytes(text.encode(errors="surrogatepass"))
        return _outcome(lambda: [type(note).__name__ for note in read_notes(Path(directory))])


def _status(text: str) -> str:
    return _outcome(lambda: foreign_allocations(BLUE, {"allocatedIPs": text}))


def _shown_status(text: str) -> str:
    """The same where it says that it was written by us, as an agent that was stolen may have it: for `check`, and for
    `apply` beside it."""
    obj: dict[str, Any] = {
        "apiVersion": SPIDERPOOL,
        "kind": "SpiderIPPool",
        "metadata": {"name": "blue", "resourceVersion": "1"},
        "spec": {"ipVersion": 4, "subnet": "10.6.0.0/16", "ips": ["10.6.0.1-10.6.0.9"]},
        "status": {"allocatedIPs": text, DIGEST: digest_of(text) if has_encoding(text) else ""},
    }

    def judged() -> Any:
        told = [finding.what for finding in states((), (obj,), {"blue": BLUE}, {})]
        for line in told:
            assert len(line) <= _LONGEST, len(line)
            assert showable(line) == line, ascii(line)
        return told, admit({**obj, "spec": {**obj["spec"], "disable": True}}, obj)["spec"]

    return _outcome(judged)


def _frame(text: str) -> str:
    """A body, as a value and as the frame of a peer that has shown who it is."""
    body = text.encode("latin-1", errors="replace")
    incoming = wire.Incoming()
    list(incoming.receive(wire.hello("peer")))
    _outcome(lambda: list(incoming.receive(struct.pack(">I", len(body)) + body)))
    return _outcome(lambda: wire.decode_value(body))


def _executed(network: NetworkList) -> Any:
    """Whatever a network says, only bare names are executed."""
    names = [type_of(network, index) for index in range(len(network.plugins))]
    assert all("/" not in name and not name.startswith(".") for name in names), names
    assert judge_network_list(network.to_json(), "it", "blue") == network
    return [
        derive(network, index, capabilities={"ips": []}, arguments={"a": 1}) for index in range(len(names))
    ]


def _told(text: str) -> Any:
    result = read_result(text.encode(errors="surrogatepass"), "macvlan")
    return status(
        in_version(with_default_routes(result, [4], ["10.0.0.1"]), "0.3.1"), "blue", "eth0", default=True
    )


def _network_of(obj: Mapping[str, Any]) -> str:
    """What is let in is made into a network that is as its object says."""
    config = MultusConfig.from_object(admit({"apiVersion": SPIDERPOOL, "kind": KIND, **obj}))
    stored = replace(config, uid="u")  # which only the API server gives
    assert is_as_wanted(stored, NetworkAttachment.from_object(attachment(stored)))
    return config.cni_type


def _reviewed(text: str) -> str:
    """A question to the webhook, with what its two rules say of the object beside others, and the answer."""

    def answer() -> Any:
        question = read_question(text.encode(errors="surrogatepass"))
        whys: list[str] = []
        if question.reviewed is not None:
            assert len(question.reviewed.title) < 1_000
            extent = overlap_review(lambda _: None).question(question.reviewed)
            if extent is not None and (common := shared(extent.added, BLUE_EXTENT)):
                whys.append(refusal(extent.wanted, BLUE_EXTENT, common))
            network = network_review(lambda _: None).question(question.reviewed)
            if network is not None:
                assert not decide([network.wanted], None, {}).findings
            placement = placement_review(lambda _: None).question(question.reviewed)
            if placement is not None:
                wanted, before = placement.wanted, placement.before
                if isinstance(wanted, IPPool):
                    whys.append(misplaced(wanted, [SpiderSubnet.from_object(RACK)]))
                else:
                    whys.append(misfit(wanted, [BLUE]))
                    whys += [lost(wanted, before)] if isinstance(before, SpiderSubnet) else []
        for why in whys:
            assert why.isprintable(), ascii(why)
            assert len(why) <= _LONGEST, len(why)
            json.loads(write_answer(question, ReviewVerdict(why)))
        return [bool(why) for why in whys]

    return _outcome(answer)


def _claimed(obj: Mapping[str, Any]) -> Any:
    """A claim, and the pod that refers to it."""
    pod = Pod(
        "shop",
        "web-0",
        "u",
        annotations={known.NETWORKS: '[{"name":"net","ipam-claim-reference":"c"}]'},
    )
    claims = {"net1": IPAMClaim.from_object(obj)}
    asks = AddressRequest(interface="net1")
    settings = Settings(networks_annotated=True)
    return plan(pod, None, None, {"blue": BLUE}, asks, settings, claims=claims).reasons()


def _noted(text: str) -> str:
    """A note of attachments, as a damaged disk may have it: whatever is read can be executed."""

    def read() -> Any:
        note = read_note("c1", text.encode(errors="surrogatepass"))
        for attached in note.attached:
            _executed(attached.network)
        return note

    return _outcome(read)


def _said(text: str) -> str:
    """What a plugin says that fails."""
    data = text.encode(errors="surrogatepass")
    error = read_refusal("plugin macvlan ADD of net1", 1, data, data)
    assert len(str(error)) <= _LONGEST
    assert str(error).isprintable(), ascii(str(error))
    return f"value: {_PARTICULAR.sub('', str(error))[:40]} {error.cni_code == 100}"


def _configured(read: Callable[[Mapping[str, Any]], Any]) -> Target:
    """The configuration of a plugin of ours in a network of somebody's, as the protocol lets it in."""

    def target(text: str) -> str:
        data = text.encode(errors="surrogatepass")
        return _outcome(lambda: read(protocol.parse(ENVIRONMENT, data).conf))

    return target


def _scaled(obj: Mapping[str, Any]) -> Workload:
    """An object of somebody else's kind, with its `scale` inside."""
    scale = obj.get("scale")
    return Workload.of_another_kind(
        obj, "apps.kruise.io", "v1", "CloneSet", scale if isinstance(scale, dict) else None
    )


def _applied(obj: Mapping[str, Any]) -> Any:
    """What `apply` lets in, it lets in again, in place of itself."""
    admitted = admit(obj)
    assert admit(admitted, admitted) == admitted
    return admitted["kind"]


def _foreign(ipam_type: str, read: Callable[[Network], Any]) -> Target:
    """A network of another IPAM, for who takes over from it."""

    def understood(text: str) -> Any:
        network = network_of("NetworkAttachmentDefinition shop/net", text, ipam_type, name="net")
        return None if network is None else read(network)

    return lambda text: _outcome(lambda: understood(text))


def _conf_of_node(text: str) -> str:
    """A file of the node's own, with plugins put behind it; and what somebody asks for as our own."""
    wanted = WantedConf(None, ({"type": "coordinator"},), {"type": "spiderpool"})
    asked = _outcome(lambda: read_wanted(text))
    conf = _outcome(lambda: conf_for(wanted, [("10-a.conflist", text)]))
    return conf if conf.startswith("value") else asked


def _division(obj: Mapping[str, Any]) -> Any:
    """Whatever stands in a status, it is read, divided, and written as something that is read again."""
    subnet = SpiderSubnet.from_object(obj)
    shares = SubnetShares(subnet, IntervalSet(), (), SubnetUse())
    shares.ensure("auto4-web", "apps_v1_Deployment_shop_web", 2)
    written = status_of(obj.get("status") or {} if isinstance(obj.get("status"), dict) else {}, shares, None)
    again = SpiderSubnet.from_object({**obj, "status": written})
    assert dict(again.controlled) == shares.controlled
    return again.allocated


ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/run/netns/x",
    "CNI_ARGS": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u",
}
BLUE_EXTENT = Extent("SpiderIPPool", "blue", 4, BLUE.available)
RACK = {"metadata": {"name": "rack", "uid": "u"}, "spec": {"subnet": "10.6.0.0/16", "gateway": "10.6.0.254"}}


def _adopted(obj: Mapping[str, Any]) -> Any:
    """Doing it twice changes nothing."""
    IPPool.from_object(obj)
    made = adopted_pool(obj, SpiderSubnet.from_object(RACK), RACK)
    assert adopted_pool(made, SpiderSubnet.from_object(RACK), RACK) == made
    return made["spec"].get("gateway")


TARGETS: dict[str, Target] = {
    "subnet-object": _object(_division),
    "adopted-pool": _object(_adopted),
    "ippools": _planned(known.POD_POOLS),
    "ippool": _planned(known.POD_POOL),
    "subnets": _subnets(known.POD_SUBNETS),
    "subnet": _subnets(known.POD_SUBNET),
    "ip-number": _subnets(known.POD_IP_NUMBER),
    "routes": _of_pod(known.POD_ROUTES, known.read_routes),
    "networks": _of_pod(known.NETWORKS, known.read_networks),
    "default-network": _of_pod(
        known.DEFAULT_NETWORK, lambda pod: known.read_default_network(pod, "kube-system", None)
    ),
    "attachments": _of_pod(known.NETWORKS, read_attachments),
    "default-attachment": _of_pod(
        known.DEFAULT_NETWORK, lambda pod: read_default_attachment(pod, "kube-system", None, "eth0")
    ),
    "ipam-claim": _object(_claimed),
    "admission-review": _reviewed,
    "applied": _object(_applied),
    "scaled-workload": _object(_scaled),
    "attachment-note": _noted,
    "plugin-refusal": _said,
    "node-configuration": lambda text: _outcome(
        lambda: NodeConfiguration.of(protocol.parse(ENVIRONMENT, text.encode(errors="surrogatepass")))
    ),
    "coordinator-conf": _configured(lambda conf: (without_wrong_fields(conf), read_settings(conf))),
    "ifacer-conf": _configured(read_ifacer_settings),
    "chained-conf": _conf_of_node,
    "whereabouts-network": _foreign("whereabouts", lambda network: whereabouts.ranges_of(network, {})),
    "host-local-network": _foreign("host-local", host_local.ranges_of),
    "whereabouts-pool": _object(lambda obj: ip_pool_of(dict(obj))),
    "reported-interface": _of_pod(NETWORK_STATUS, lambda pod: interface_of(pod, "10.6.0.5")),
    "neighbour": lambda text: _outcome(lambda: frames.read(text.encode("latin-1", errors="replace"))),
    "network-list": lambda text: _outcome(lambda: _executed(read_network_list(text, "it", "blue"))),
    "cni-result": lambda text: _outcome(lambda: _told(text)),
    "default-route-nic": _of_pod(known.POD_DEFAULT_ROUTE_NIC, known.read_default_route_nic),
    "network-status": _of_pod(NETWORK_STATUS, lambda pod: sorted(pod.reported)),
    "namespace": _of_namespace,
    "pod": _object(
        lambda obj: (found := Pod.from_object(obj), found.controller, found.reported, found.ended)
    ),
    "namespace-object": _object(Namespace.from_object),
    "node": _object(Node.from_object),
    "statefulset": _object(lambda obj: StatefulSet.watched(obj, None).keeps("web-1")),
    "machine": _object(VirtualMachine.from_instance),
    "workload": _object(_workload),
    "coordinator": _object(SpiderCoordinator.from_object),
    "multus-config": _object(_network_of),
    "network-attachment": _object(
        lambda obj: [one.data for one in NetworkAttachment.from_object(obj).plugins()]
    ),
    "node-cni": lambda text: _outcome(lambda: node_cni([("10-x.conflist", text)])),
    "pool": _object(IPPool.from_object),
    "reserved": _object(ReservedIP.from_object),
    "records": _block("records"),
    "entry": _entry,
    "member": _member,
    "released": _block("released"),
    "suspect": _block("suspect"),
    "quarantine": _block("quarantine"),
    "stdin": _stdin,
    "environment": _environment,
    "note": _note,
    "status": _status,
    "shown-status": _shown_status,
    "frame": _frame,
}
