"""Names as Kubernetes has them (RFC 1123; apimachinery, util/validation)."""

from __future__ import annotations

import hashlib
import re

LABEL_LONGEST, SUBDOMAIN_LONGEST = 63, 253

LABEL_RULE = (
    f"lower-case letters, digits and '-', with a letter or digit at both ends, at most {LABEL_LONGEST}"
)
SUBDOMAIN_RULE = f"lower-case letters, digits, '-' and '.', with a letter or digit at both ends, at most {SUBDOMAIN_LONGEST}"
LABEL_KEY_RULE = (
    "letters, digits, '-', '_' and '.', with a letter or digit at both ends, at most 63, and in front of them, if at all, a "
    "DNS subdomain and '/'"
)
LABEL_VALUE_RULE = (
    "letters, digits, '-', '_' and '.', with a letter or digit at both ends, at most 63, or nothing"
)

_PART = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL = re.compile(_PART)
_QUALIFIED = re.compile("([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")
_NOT_IN_VALUES = re.compile("[^-A-Za-z0-9_.]")
_DIGEST = 10
_SUBDOMAIN = re.compile(rf"{_PART}(\.{_PART})*")


def is_label(name: str) -> bool:
    """Whether a namespace may be called so: a DNS label (RFC 1123 section 2.1)."""
    return len(name) <= LABEL_LONGEST and _LABEL.fullmatch(name) is not None


def is_subdomain(name: str) -> bool:
    """Whether any other object may be called so: a DNS subdomain, labels with dots between them."""
    return len(name) <= SUBDOMAIN_LONGEST and _SUBDOMAIN.fullmatch(name) is not None


def is_label_key(text: str) -> bool:
    """Whether a label of an object may be called so: an optional DNS subdomain with a slash, and a name."""
    prefix, slash, name = text.rpartition("/")
    return _QUALIFIED.fullmatch(name) is not None and (not slash or is_subdomain(prefix))


def is_label_value(text: str) -> bool:
    """Whether a label of an object may have this value."""
    return text == "" or _QUALIFIED.fullmatch(text) is not None


def label_value(text: str) -> str:
    """The text as the value of a label: itself, or, where that cannot be, its beginning and a digest of all of it."""
    if is_label_value(text):
        return text
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_DIGEST]
    beginning = _NOT_IN_VALUES.sub("-", text[: LABEL_LONGEST - _DIGEST - 1]).lstrip("-_.")
    return f"{beginning or 'x'}-{digest}"


def is_network_name(text: str) -> bool:
    """Whether a network attachment may be meant: `name`, or `namespace/name`."""
    namespace, slash, name = text.rpartition("/")
    return is_subdomain(name) and (not slash or is_label(namespace))
