"""Which kind of cluster network a node has, by the files of its CNI directory as installers write them."""

from __future__ import annotations

import json

import pytest

from actors.decisions.node_cni import NodeCniTypes, node_cni


def conflist(name: str, *types: str) -> str:
    return json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": [{"type": one} for one in types]})


MULTUS = ("00-multus.conf", json.dumps({"name": "multus-cni-network", "type": "multus", "delegates": []}))
CALICO = ("10-calico.conflist", conflist("k8s-pod-network", "calico", "bandwidth", "portmap"))
CILIUM = ("05-cilium.conflist", conflist("cilium", "cilium-cni"))
FLANNEL = ("10-flannel.conflist", conflist("cbr0", "flannel", "portmap"))
UNDERLAY = ("10-underlay.conflist", conflist("underlay", "macvlan", "coordinator"))


@pytest.mark.parametrize(
    "files, kind",
    [
        ((CALICO,), "calico"),
        ((CILIUM,), "cilium"),
        ((FLANNEL,), "cluster"),
        ((UNDERLAY,), "none"),
        ((), ""),
        ((MULTUS, CALICO), "calico"),
        ((MULTUS,), ""),
        ((("00-networks.conflist", conflist("networks", "orbweaver-networks")), CILIUM), "cilium"),
        ((("01-renamed.conf", MULTUS[1]), FLANNEL), "cluster"),
        ((CALICO, CILIUM), "cilium"),  # the first by name counts
        ((("README", "x"), ("calico-kubeconfig", "x"), CALICO), "calico"),
        ((("10-a.conf", json.dumps({"name": "mine", "type": "cilium-cni"})),), "cilium"),
        ((("10-a.conflist", conflist("calico", "macvlan")),), "calico"),
        ((("10-broken.conflist", "{"), CALICO), ""),
        ((("10-broken.conflist", "[" * 100_000), CALICO), ""),
        ((("10-a.conf", "[]"), CALICO), ""),
        ((("10-odd.conf", json.dumps({"name": ["x"], "plugins": [1, {"type": 2}]})),), "none"),
    ],
)
def test_the_first_file_tells(files: tuple[tuple[str, str], ...], kind: str) -> None:
    assert node_cni(reversed(files)) == kind


def test_the_majority_counts_and_the_others_are_named() -> None:
    nodes = NodeCniTypes(
        {"cilium": ["n4"], "calico": ["n1", "n2", "n3"], "none": ["a", "c", "b", "d", "e"][:2]}
    )

    assert nodes.majority == "calico"
    assert (
        nodes.difference == "the nodes' CNI directories differ: calico on 3 nodes, cilium on n4, none on a, c"
    )


@pytest.mark.parametrize(
    "nodes, majority",
    [({}, ""), ({"none": ["n1"]}, "none"), ({"cilium": ["n1"], "calico": ["n2"]}, "calico")],
)
def test_of_equals_the_first_by_name_counts_so_that_it_does_not_change_by_itself(
    nodes: dict[str, list[str]], majority: str
) -> None:
    assert NodeCniTypes(nodes).majority == majority
    assert bool(NodeCniTypes(nodes).difference) == (len(nodes) > 1)


def test_a_few_of_many_are_named() -> None:
    nodes = NodeCniTypes({"calico": [f"n{n}" for n in range(10)], "none": [f"m{n}" for n in range(9)]})
    assert nodes.difference.endswith("none on m0, m1, m2 and 6 more")
