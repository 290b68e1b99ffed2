"""What may be the name of a network interface: one rule for annotations, networks, SpiderCoordinators and ADD. Which name
a further interface of a pod gets says `read_networks` in `decisions/annotations.py`; the veth's, `host_veth_name`
in `cni/dataplane/coordinator/veth.py`; a VLAN's, `cni/dataplane/ifacer/settings.py`.

What must always hold: what is let through here is a name that the kernel takes (dev_valid_name() in net/core/dev.c, which
counts and compares bytes, not characters) and that can be shown on a terminal and in a log.
"""

from __future__ import annotations

NAME_LENGTH = 15
"""In bytes: IFNAMSIZ less its final NUL (linux/if.h)."""

RULE = (
    f"an interface's name has 1 to {NAME_LENGTH} bytes without spaces, slashes, colons and control characters"
)

_REFUSED = frozenset(b"/:\t\n\v\f\r \xa0")
"""Bytes: slash, colon, and what the kernel's isspace() takes for white space, to which no-break space in Latin-1 belongs
(lib/ctype.c) and so the last byte of some letters in UTF-8."""


def is_interface_name(name: str) -> bool:
    """Whether the kernel would take it and a person could read it."""
    try:
        octets = name.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no interface's name can be made of
        return False
    if not 1 <= len(octets) <= NAME_LENGTH or name in (".", ".."):
        return False
    return name.isprintable() and _REFUSED.isdisjoint(octets)
