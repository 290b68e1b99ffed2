"""host-local: its directories on the nodes, the networks that name it, and the swap with it."""

from cni.takeover.host_local.source import add_options, open_source

__all__ = ["add_options", "open_source"]
