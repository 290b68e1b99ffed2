"""Notes of what containers were attached to: whole or not at all, bounded, and each for itself."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.errors import InvalidObject, OrbweaverError, Overloaded, PodRefused, StoreUnavailable
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


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        ({"f_bavail": 3}, "is on a disk that is full"),
        ({"f_favail": 0}, "is on a disk that is full"),
        ({"f_flag": os.ST_RDONLY}, "read-only"),
    ],
)
def test_a_node_that_could_not_note_an_add_is_not_ready_for_it(
    cache: AttachmentCache, monkeypatch: pytest.MonkeyPatch, disk: dict[str, int], said: str
) -> None:
    """Before the directory is made, too."""
    cache.require_room()
    healthy = SimpleNamespace(f_bavail=1 << 20, f_frsize=4096, f_files=9, f_favail=9, f_flag=0)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**{**vars(healthy), **disk}))
    with pytest.raises(StoreUnavailable, match=said) as refused:
        cache.require_room()
    assert refused.value.cni_code == 50


def test_a_node_with_too_many_notes_is_not_ready(
    cache: AttachmentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment_cache, "MOST_NOTES", 1)
    cache.write(NOTE)
    with pytest.raises(StoreUnavailable, match="notes of 1 containers"):
        cache.require_room()
