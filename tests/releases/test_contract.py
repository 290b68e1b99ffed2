"""What two neighbouring versions say to each other and write for each other, compared without running a cluster.

Who changes a message, a value of it or the form of a block sees here whether the version before can live with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import actors
from actors.resources.blocks.block import BLOCK_SIZE, Block
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import OtherSandbox, Record
from actors.resources.blocks.suspect import Suspect
from cni.networks.attachment_cache import AttachmentCache
from tests.actors.resources.blocks.test_encoding import BASE
from tests.cni.networks.test_attachment_cache import NOTE
from tests.tools import release

KNOWN: dict[str, str] = {
    "message auto-pools/allocate is new": "a leader of protocol 1 is not sent it: `Endpoint` asks `pools_for` then",
    "message watches/watching is answered otherwise": "its agents do not look at the answer, which is a number now; its "
    "leaders answer nothing, and an agent asks what is recorded every ten minutes then",
}
"""Differences that are meant, each with what the version before does about it."""


class Version:
    """A process of one version that says what it knows (`describe.py`)."""

    def __init__(self, packages: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("describe.py"))],
            env={**os.environ, "PYTHONPATH": str(packages)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Versions(NamedTuple):
    old: Version
    new: Version


@pytest.fixture(scope="module")
def versions() -> Iterator[Versions]:
    with ExitStack() as stack:
        new = Path(actors.__file__ or "").resolve().parents[1]
        yield Versions(*(stack.enter_context(Version(where)) for where in (release.last().packages(), new)))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of two versions' messages one of the two would refuse, or take for something else."""
    lowest, highest = new["versions"]
    if not old["versions"][0] <= highest or not lowest <= old["versions"][1]:
        return [f"no common protocol: {old['versions']} and {new['versions']}"]
    found: list[str] = []
    for name, fields in old["values"].items():
        found += _of_value(name, fields, new["values"].get(name))
    for name, members in old["enums"].items():
        if members != new["enums"].get(name):
            found.append(f"enum {name} has other members")
    for name, parameters in old["messages"].items():
        others = new["messages"].get(name)
        if others is None:
            found.append(f"message {name} is gone")
        elif others[: len(parameters)] != parameters or not all(
            more["optional"] for more in others[len(parameters) :]
        ):
            found.append(f"message {name} takes other arguments")
        elif old["answers"][name] != new["answers"][name]:
            found.append(f"message {name} is answered otherwise")
    found += [f"message {name} is new" for name in new["messages"].keys() - old["messages"].keys()]
    return sorted(found)


def _of_value(name: str, fields: dict[str, Any], others: dict[str, Any] | None) -> Iterator[str]:
    if others is None:
        yield f"value {name} is gone"
        return
    for field, of_field in fields.items():
        if field not in others:
            yield f"{name} has no field {field} any more"
        elif others[field]["type"] != of_field["type"]:
            yield f"{name}.{field} is of another type"
        elif of_field["optional"] and not others[field]["optional"]:
            yield f"{name}.{field} has no default any more"
    for field, of_field in others.items():
        if field not in fields and not of_field["optional"]:
            yield f"{name}.{field} is new and has no default"


def test_agents_and_leaders_of_both_versions_understand_each_other(versions: Versions):
    """A new field needs a default, which is not sent (`actors/runtime/wire.py`). What else changes has to stand in `KNOWN`
    with what the version before does about it, or needs another protocol version."""
    found = differences(versions.old.ask("describe"), versions.new.ask("describe"))
    assert sorted(KNOWN) == found


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda one: one["values"]["Record"].pop("mac"), "Record has no field mac any more"),
        (lambda one: one["values"]["Record"]["mac"].update(type="int"), "Record.mac is of another type"),
        (
            lambda one: one["values"]["Record"]["mac"].update(optional=False),
            "Record.mac has no default any more",
        ),
        (
            lambda one: one["values"]["Record"].update(site={"type": "str", "optional": False}),
            "Record.site is new and has no default",
        ),
        (lambda one: one["values"].pop("Record"), "value Record is gone"),
        (lambda one: one["messages"].pop("pool/withdraw"), "message pool/withdraw is gone"),
        (lambda one: one["messages"].update({"pool/grow": []}), "message pool/grow is new"),
        (lambda one: one["messages"]["pool/withdraw"].clear(), "message pool/withdraw takes other arguments"),
        (
            lambda one: one["answers"].update({"pool/withdraw": "int"}),
            "message pool/withdraw is answered otherwise",
        ),
        (lambda one: one.update(versions=[9, 9]), "no common protocol"),
    ],
)
def test_a_change_that_the_version_before_cannot_know_is_found(versions: Versions, change, says: str):
    old, new = versions.old.ask("describe"), versions.old.ask("describe")
    change(new)
    (found,) = differences(old, new)
    assert says in found


def test_a_field_more_that_has_a_default_is_no_difference(versions: Versions):
    old, new = versions.old.ask("describe"), versions.old.ask("describe")
    new["values"]["Record"]["site"] = {"type": "str", "optional": True}
    new["messages"]["pool/withdraw"].append({"type": "str", "optional": True})
    assert differences(old, new) == []


SHOWN = st.text(st.characters(categories=("L", "N", "P", "S")), max_size=3) | st.sampled_from(
    ["", "~", "%41", "a:b", "a b", "a,b", "#", "café", "~~~~"]
)
RECORDS = st.builds(
    Record,
    pool=st.sampled_from(["blue", "~", "a:b", "%41"]),
    pod=st.sampled_from(["a/web-0", "a/web-1", "b/web-0"]),
    uid=SHOWN | st.uuids().map(str),
    container=SHOWN | st.binary(min_size=32, max_size=32).map(bytes.hex),
    interface=SHOWN,
    node=SHOWN,
    owner=SHOWN,
    since=st.sampled_from(["", "2026-11-21T07:00:00Z", "2026-02-30T07:00:00Z"]),
    network=SHOWN,
    request=SHOWN,
    claim=SHOWN,
    mac=st.sampled_from(["", "02:00:00:00:00:0a"]),
    other_sandboxes=st.lists(st.builds(OtherSandbox, *[SHOWN] * 5), max_size=2).map(tuple),
)
"""Records that can be judged, with whatever the encoding has to escape."""
MOMENTS = st.integers(1_500_000_000_000, 4_000_000_000_000).map(lambda at: at / 1000)
PLACES = st.integers(BASE, BASE + BLOCK_SIZE - 1)
BLOCKS = st.builds(
    Block,
    st.just(4),
    st.just(BASE),
    st.dictionaries(PLACES, RECORDS, max_size=6),
    st.dictionaries(PLACES, MOMENTS, max_size=3),
    st.dictionaries(
        PLACES, st.just(Suspect("c", "a/web-0", "n1", "eth0", "net", "02:00:00:00:00:0a", 2)), max_size=2
    ),
    st.dictionaries(PLACES, st.builds(Quarantine, st.just("it answers"), MOMENTS, st.booleans()), max_size=2),
)


@given(block=BLOCKS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_blocks_of_either_version_are_read_and_written_by_the_other(versions: Versions, block: Block):
    written = versions.new.ask("understood", block.to_object())
    read_by_old = versions.old.ask("understood", written["object"])
    read_again = versions.new.ask("understood", read_by_old["object"])
    assert written == read_by_old == read_again


def test_what_a_newer_version_appends_to_a_record_costs_the_older_nothing(versions: Versions):
    """It is lost when the older one writes the block, so what must not be lost is read one version before it is written."""
    block = Block(
        4, BASE, {BASE: Record("blue", "a/web-0", "u", "c" * 64, "eth0", "n1", "", "2026-11-21T07:00:00Z")}
    )
    newer = block.to_object()
    table, _, entries = newer["spec"]["records"].partition(" ")
    newer["spec"]["records"] = f"{table}:site-9 {entries}"
    newer["spec"]["site"] = "9"
    assert versions.old.ask("understood", newer) == versions.old.ask("understood", block.to_object())


def test_a_record_in_a_form_of_a_newer_version_is_kept_as_it_is(versions: Versions):
    """The older one can neither give the address out nor free it; the newer one has it back, unchanged."""
    newer = Block(4, BASE).to_object()
    newer["spec"]["records"] = "#a/:blue:eth0:n1::net 3:+:a:form:of:later"
    once = versions.old.ask("understood", newer)
    assert once["records"] == {}
    assert list(once["unjudged"]) == [str(BASE + 3)]
    assert "+:a:form:of:later" in unquote(once["unjudged"][str(BASE + 3)])
    assert versions.new.ask("understood", once["object"])["unjudged"] == once["unjudged"]


def test_what_either_version_notes_of_networks_the_other_detaches(versions: Versions, tmp_path: Path):
    """But for the number of a process's namespace, which the version before does not know: it goes by the path."""
    cache = AttachmentCache(tmp_path)
    cache.write(NOTE)
    assert versions.new.ask("noted", str(tmp_path)) == ["c1"]
    assert cache.read("c1") == NOTE
    assert versions.old.ask("noted", str(tmp_path)) == ["c1"]
    assert cache.read("c1") == replace(NOTE, inode=None)
    assert versions.new.ask("noted", str(tmp_path)) == ["c1"]
    assert versions.old.ask("noted", str(tmp_path)) == ["c1"]
