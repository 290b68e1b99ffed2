"""Which version of Orbweaver this is."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """As the installed distribution says it; "unknown" where the code runs without being installed."""
    try:
        return metadata.version("orbweaver")
    except metadata.PackageNotFoundError:
        return "unknown"
