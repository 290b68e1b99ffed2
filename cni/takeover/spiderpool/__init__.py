"""Spiderpool: what it has in the cluster, and the swap with it."""

from cni.takeover.spiderpool.source import add_options, open_source

__all__ = ["add_options", "open_source"]
