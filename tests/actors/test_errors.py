"""Errors cross process boundaries whole."""

import pytest

from actors.errors import NoAddress, OrbweaverError, StoreUnavailable, from_wire


@pytest.mark.parametrize(
    "error",
    [
        NoAddress("no pool can serve pod a/b", details=("eth0 IPv4: pool blue refused: disabled",)),
        StoreUnavailable("database or disk is full", maybe_written=False),
        StoreUnavailable("no answer", cni_code=50),
    ],
)
def test_round_trip(error: OrbweaverError):
    """Type, text, code and what only that type knows come back."""
    again = from_wire(error.to_wire())

    assert type(again) is type(error)
    assert (again.message, again.details, again.cni_code) == (error.message, error.details, error.cni_code)
    assert again.facts() == error.facts()


def test_an_error_of_a_newer_version_keeps_its_code():
    """A type that is not known here is still an error of ours."""
    again = from_wire({"type": "Novel", "message": "something new", "code": 142})

    assert type(again) is OrbweaverError
    assert (again.message, again.cni_code) == ("something new", 142)
