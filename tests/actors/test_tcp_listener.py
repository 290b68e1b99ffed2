"""Where a process listens: one address, or all of the host in both families."""

from __future__ import annotations

import socket

import pytest

from actors.tcp_listener import listen


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_without_a_host_both_families_reach_it(address: str) -> None:
    with (
        listen("", 0) as listener,
        socket.create_connection((address, listener.getsockname()[1]), timeout=60),
    ):
        pass


def test_without_a_host_a_kernel_without_ipv6_listens_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own test whether there is IPv6 says no, as it does with `ipv6.disable=1`."""
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)

    with listen("", 0) as listener:
        assert listener.family == socket.AF_INET


def test_an_address_is_listened_on_alone() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", port), timeout=60)
