"""Nothing that somebody else wrote reaches the terminal as it is."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cni.command.printable import printable

EVIL = "n1\x1b[2J\x9b31m\u202e\u2028\x07\rfake\nEVERYTHING IS WELL \x00\ud800"


@pytest.fixture
def evil(orbweaver: Any, make_pool: Any) -> Any:
    """A store in which every text that the API does not check is an attack on a terminal."""
    orbweaver.apply(make_pool("blue", default=True))
    told = EVIL.replace("\x00", "").replace("\ud800", "")
    store = orbweaver.store()
    ips = [{"interface": told, "ipv4": "10.6.0.10/16", "ipv4Pool": told}]
    store.create(
        {
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": "SpiderEndpoint",
            "metadata": {"name": "web-a", "namespace": "default", "annotations": {"x": told}},
            "status": {"current": {"node": told, "ips": ips}},
        }
    )
    store.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "web-a",
                "namespace": "default",
                "annotations": {"ipam.spidernet.io/ippool": json.dumps({"ipv4": [told]}), "v1": told},
                "ownerReferences": [{"kind": told, "name": told, "controller": True}],
            },
            "spec": {"nodeName": told},
            "status": {"phase": told},
        }
    )
    store.close()
    orbweaver.record("10.6.0.10", "blue", "default/web-a", node=told, interface=told, owner=told)
    return orbweaver


@pytest.mark.parametrize(
    "command",
    [
        ("get", "se", "-A"),
        ("get", "se", "-A", "-o", "json"),
        ("get", "se", "-A", "-o", "yaml"),
        ("get", "pods", "-A", "-o", "wide"),
        ("get", "se", EVIL.replace("\x00", "")),
        ("ip", "show", "10.6.0.10"),
        ("ip", "show", "10.6.0.10", "-o", "json"),
        ("ip", "show", "10.6.0.10", "-o", "yaml"),
        ("ip", "show", EVIL.replace("\x00", "")),
        ("explain", "default/web-a"),
        ("explain", "default/web-a", "-o", "json"),
        ("explain", EVIL.replace("\x00", "")),
        ("check",),
        ("delete", "sp", EVIL.replace("\x00", "")),
    ],
)
def test_what_others_wrote_is_shown_as_escapes(evil: Any, command: tuple[str, ...]):
    done = evil(*command)

    shown = done.out + done.err
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert not any(line.startswith("EVERYTHING") for line in shown.splitlines())


def test_json_and_yaml_say_what_is_stored(evil: Any):
    told = EVIL.replace("\x00", "").replace("\ud800", "")

    as_json = evil("get", "se", "web-a", "-o", "json").json
    as_yaml = yaml.safe_load(evil("get", "se", "web-a", "-o", "yaml").out)

    assert as_json["status"]["current"]["node"] == as_yaml["status"]["current"]["node"] == told


@given(st.text())
def test_any_text(text: str):
    stream = io.StringIO()

    printable(stream).write(text)

    assert all(char.isprintable() or char in "\n\t" for char in stream.getvalue())
    if text.isprintable():
        assert stream.getvalue() == text
