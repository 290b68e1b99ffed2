"""Whereabouts: its IPPools and reservations in the cluster, the networks that name it, and the swap with it."""

from cni.takeover.whereabouts.source import add_options, open_source

__all__ = ["add_options", "open_source"]
