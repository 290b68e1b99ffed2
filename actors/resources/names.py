"""Names as Kubernetes has them (RFC 1123; apimachinery, util/validation)."""

from __future__ import annotations

import re

LABEL_LONGEST, SUBDOMAIN_LONGEST = 63, 253

_PART = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL = re.compile(_PART)
_SUBDOMAIN = re.compile(rf"{_PART}(\.{_PART})*")


def is_label(name: str) -> bool:
    """Whether a namespace may be called so: a DNS label (RFC 1123 section 2.1)."""
    return len(name) <= LABEL_LONGEST and _LABEL.fullmatch(name) is not None


def is_subdomain(name: str) -> bool:
    """Whether any other object may be called so: a DNS subdomain, labels with dots between them."""
    return len(name) <= SUBDOMAIN_LONGEST and _SUBDOMAIN.fullmatch(name) is not None
