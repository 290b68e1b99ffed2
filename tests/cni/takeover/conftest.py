"""The command line on a store of its own, as the commands' own tests have it."""

from tests.cni.command.conftest import make_pool, orbweaver

__all__ = ["make_pool", "orbweaver"]
