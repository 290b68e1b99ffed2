"""Notes of what containers were attached to: whole or not at all, bounded, and each for itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actors.errors import InvalidObject, OrbweaverError, Overloaded, PodRefused
from cni.networks import attachment_cache
from cni.networks.attachment_cache import Attached, AttachmentCache, AttachmentNote
from cni.networks.network_list import judge_network_list

NETWORK = judge_network_list(
    {
        "cniVersion": "1.1.0",
        "name": "red",
        "plugins": [{"type": "macvlan", "master": "eth1"}, {"type": "tuning"}],
    },
    "it",
    "",
)
NOTE = AttachmentNote(
    "c1",
    "default/web",
    "/run/netns/x",
    "eth0",
    "/opt/cni/bin",
    (
        Attached("blue", "eth0", NETWORK, True, "A=b", {"ips": ["10.6.0.7"]}),
        Attached(
            "default/red",
            "net1",
            NETWORK,
            cni_arguments={"a": [1]},
            result={"ips": [{"address": "10.6.0.8/16"}]},
        ),
    ),
    4026532000,
)


@pytest.fixture
def cache(tmp_path: Path) -> AttachmentCache:
    return AttachmentCache(tmp_path / "notes")


def test_a_note_is_read_as_it_was_written(cache: AttachmentCache) -> None:
    assert cache.read("c1") is None
    cache.write(NOTE)

    assert cache.read("c1") == NOTE
    assert cache.read("c2") is None
    assert list(cache.all()) == [NOTE]
    later = NOTE.with_result(0, {"ips": []})
    cache.write(later)
    assert cache.read("c1") == later
    cache.remove("c1")
    cache.remove("c1")
    assert cache.read("c1") is None


def test_what_was_being_written_when_the_node_stopped_is_no_note(
    cache: AttachmentCache, tmp_path: Path
) -> None:
    cache.write(NOTE)
    (tmp_path / "notes" / ".c2.json").write_text('{"form": 1, "conta')

    assert [note.container for note in cache.all()] == ["c1"]
    assert cache.read("c2") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"form": 2}', '{"form": 1, "attached": [{"network": {"type": "/bin/sh"}}]}']
)
def test_a_note_that_cannot_be_read_costs_its_own_container(
    cache: AttachmentCache, tmp_path: Path, text: str
) -> None:
    """Nor does it let anybody execute what no network could name."""
    cache.write(NOTE)
    (tmp_path / "notes" / "c2.json").write_text(text)

    with pytest.raises(OrbweaverError, match="c2"):
        cache.read("c2")
    assert [note.container for note in cache.all()] == ["c1"]


@pytest.mark.parametrize("container", ["", "../c1", "a/b", ".hidden", "x" * 300])
def test_what_is_no_container_has_no_file(cache: AttachmentCache, container: str) -> None:
    with pytest.raises(InvalidObject, match="no container's id"):
        cache.read(container)


def test_notes_are_bounded(cache: AttachmentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment_cache, "MOST_NOTES", 2)
    for number in range(2):
        cache.write(replace(NOTE, container=f"c{number}"))
    with pytest.raises(Overloaded, match="2 containers"):
        cache.write(replace(NOTE, container="c2"))
    cache.write(replace(NOTE, container="c1"))  # in place of its own
    large = Attached("x", "net1", NETWORK, result={"ips": [{"address": "x" * attachment_cache.LONGEST_NOTE}]})
    with pytest.raises(PodRefused, match="name fewer"):
        cache.write(replace(NOTE, attached=(large,)))
