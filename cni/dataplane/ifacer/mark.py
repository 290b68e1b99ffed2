"""The mark on an interface that `ifacer` made, by which the uninstaller tells it from the node's own.

How it works. The mark is a note that the kernel keeps (`ip link` shows it as `alias`), and a bond's names the members that
ifacer gave it. The kernel takes no note with the message that makes an interface, but it takes a group: an interface is
born in one of ours, and leaves it when it gets the note.
What must always hold: also an interface whose maker was killed between the two is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from cni.dataplane.state import Link

BORN = 0x6F726277
"""The group of an interface that has no note yet. Groups are any number, and those of people are small."""
_NOTE = "orbweaver ifacer"
_OF = f"{_NOTE} of "
_LONGEST = 255
"""Bytes of a note that the kernel takes (IFALIASZ, without the end)."""


def note(members: Iterable[str] = ()) -> str:
    """For a VLAN, or for a bond of these members. Names beyond what the kernel keeps are left out; whoever finds such a
    bond finds a member that is not named, and lets it be."""
    text = _NOTE
    for name in sorted(set(members)):
        longer = f"{_OF}{name}" if text == _NOTE else f"{text} {name}"
        if len(longer.encode()) > _LONGEST:
            break
        text = longer
    return text


def is_ours(link: Link) -> bool:
    """Whether ifacer made it."""
    return link.kind in ("bond", "vlan") and (
        link.group == BORN or link.alias == _NOTE or link.alias.startswith(_OF)
    )


def noted_members(link: Link) -> frozenset[str]:
    """Those that ifacer gave a bond of its own. One whose maker was killed before the note has none: they come after it."""
    return frozenset(link.alias.removeprefix(_OF).split()) if link.alias.startswith(_OF) else frozenset()
