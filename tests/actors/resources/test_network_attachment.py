"""Networks that pods name: read within bounds, whoever wrote them."""

from __future__ import annotations

from typing import Any

import pytest

from actors.errors import InvalidObject
from actors.resources.admission import admit
from actors.resources.network_attachment import (
    API_VERSION,
    KIND,
    LONGEST_CONFIG,
    RESOURCE_NAME,
    NetworkAttachment,
    for_attaching,
)


def network(config: Any) -> dict[str, Any]:
    metadata = {"name": "blue", "namespace": "shop"}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {"config": config}}


@pytest.mark.parametrize(
    "config, types",
    [
        ('{"cniVersion": "1.0.0", "name": "blue", "type": "macvlan"}', ["macvlan"]),
        ('{"name": "blue", "plugins": [{"type": "macvlan"}, {"type": "tuning"}]}', ["macvlan", "tuning"]),
        ('{\n  "type": "ipvlan",\n  "master": "eth1"\n}', ["ipvlan"]),
        ("", []),
        (None, []),
    ],
)
def test_the_plugins_of_a_network_are_those_of_its_configuration(config: Any, types: list[str]) -> None:
    admitted = admit(network(config))
    found = NetworkAttachment.from_object(admitted)

    assert found.key == "shop/blue"
    assert [plugin.text("type") for plugin in found.plugins()] == types


@pytest.mark.parametrize(
    "config, words",
    [
        ("{", r"NetworkAttachmentDefinition shop/blue: spec\.config is no CNI configuration: it is not JSON"),
        ("[]", r"spec\.config is \[\], but must be a mapping"),
        ('{"name": "blue"}', r"spec\.config\.type is null, but every plugin is named by its type"),
        ('{"plugins": [{"type": "macvlan"}, {}]}', r"spec\.config\.plugins\[1\]\.type is null"),
        ('{"plugins": {}}', r"plugins is \{\}, but must be a list"),
        ("[" * 100_000, r"spec\.config is no CNI configuration: it has 100000 bytes"),
        ({"type": "macvlan"}, r"spec\.config .* must be a text"),
    ],
)
def test_a_network_that_no_pod_could_be_attached_to_is_refused(config: Any, words: str) -> None:
    with pytest.raises(InvalidObject, match=words):
        admit(network(config))


def test_a_misspelt_field_is_refused_with_the_right_one() -> None:
    with pytest.raises(InvalidObject, match="did you mean config"):
        admit({**network(""), "spec": {"conf": ""}})


def test_a_node_keeps_of_a_network_what_it_needs_of_it() -> None:
    """Every node has a cache of all networks, whoever wrote megabytes into them."""
    obj = network('{"type":"macvlan","note":"' + "x" * 1_000_000 + '"}')
    obj["metadata"]["annotations"] = {RESOURCE_NAME: "vendor.com/vf", "note": "x" * 200_000}
    kept = for_attaching(obj)

    assert (kept.key, kept.annotations) == ("shop/blue", {RESOURCE_NAME: "vendor.com/vf"})
    assert len(kept.config) == LONGEST_CONFIG + 1
    with pytest.raises(InvalidObject, match="but may have 65536"):
        kept.plugins()
    small = network('{"type":"macvlan"}')
    assert for_attaching(small) == NetworkAttachment.from_object(small)
