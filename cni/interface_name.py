"""What may be the name of a network interface: the kernel's own rule, dev_valid_name() in net/core/dev.c."""

from __future__ import annotations

NAME_LENGTH = 15
"""In bytes: IFNAMSIZ less its final NUL (linux/if.h)."""


def is_interface_name(name: str) -> bool:
    """Whether the kernel would take it."""
    if not name or name in (".", "..") or len(name.encode()) > NAME_LENGTH:
        return False
    return not any(char in "/:" or char.isspace() or not char.isprintable() for char in name)
