"""The webhook's authority on a clock of the test's: whoever trusts what is published trusts what any controller shows."""

from __future__ import annotations

import base64
from collections import deque
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from actors.cluster.authority import Authority, advance
from actors.cluster.certificates import Pair, make_authority, sign_server, span_of
from actors.errors import InvalidObject

START = datetime(2026, 11, 27, 7, 0, tzinfo=UTC)
LIFE = timedelta(minutes=10)
STEP = timedelta(seconds=5)


def trusts(bundle: str, certificate: str, now: datetime) -> bool:
    """Whether a client with this bundle takes the certificate at a moment."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    if not found.not_valid_before_utc <= now < found.not_valid_after_utc:
        return False
    for root in x509.load_pem_x509_certificates(bundle.encode()):
        if root.subject == found.issuer and root.not_valid_before_utc <= now < root.not_valid_after_utc:
            found.verify_directly_issued_by(root)
            return True
    return False


def test_two_hours_of_an_authority_that_lives_for_ten_minutes() -> None:
    """The leader looks every 5 s, a controller that stands by 25 s later, and API servers trust what was published 25 s
    before. The Secret is written and read in between."""
    authority = advance(None, START, LIFE, ())
    shown: deque[tuple[Pair, str]] = deque(maxlen=6)
    published: deque[str] = deque([authority.bundle], maxlen=6)
    signed: dict[str, Pair] = {}
    for number in range(2 * 60 * 12):
        now = START + number * STEP
        again = Authority.from_data(advance(authority, now, LIFE, [published[-1]]).to_data())
        assert again is not None
        authority = again
        published.append(authority.bundle)
        own = authority.current.certificate
        if own not in signed:
            signed[own] = sign_server(authority.current, ["orbweaver-webhook.orbweaver-system.svc"], now)
        shown.append((signed[own], authority.bundle))
        for pair, _ in (shown[-1], shown[0]):
            assert trusts(published[-1], pair.certificate, now), now
            assert trusts(published[0], pair.certificate, now), now
        # A controller asks another: either may be the one that is behind.
        assert trusts(shown[0][1], shown[-1][0].certificate, now), now
    assert 15 <= len(signed) <= 24


def test_what_nobody_was_told_to_trust_does_not_sign() -> None:
    authority = advance(None, START, LIFE, ())
    begun = advance(authority, START + LIFE / 2, LIFE, [authority.bundle])
    assert begun.following is not None
    later = START + LIFE * 0.9
    assert advance(begun, later, LIFE, [authority.bundle]) == begun
    assert advance(begun, later, LIFE, [begun.bundle, authority.bundle]) == begun
    promoted = advance(begun, later, LIFE, [begun.bundle])
    assert (promoted.current, promoted.previous) == (begun.following, authority.current.certificate)


def test_one_that_has_ended_is_made_anew() -> None:
    authority = advance(None, START, LIFE, ())
    anew = advance(authority, START + LIFE, LIFE, [authority.bundle])
    assert anew.current != authority.current
    assert span_of(anew.current.certificate) == (START + LIFE, START + 2 * LIFE)
    assert not anew.previous


@pytest.mark.parametrize(
    "data",
    [
        {"ca.crt": "no base64!"},
        {"ca.crt": base64.b64encode(b"no certificate").decode(), "ca.key": ""},
        {"ca.key": ""},
        {"ca.crt": None, "ca.key": None},
        {"ca.crt": base64.b64encode(b"\xff").decode()},
    ],
)
def test_a_secret_that_holds_something_else_is_told(data: dict[str, object]) -> None:
    with pytest.raises(InvalidObject, match="no authority of ours"):
        Authority.from_data(data)
    assert Authority.from_data({}) is None


def test_a_certificate_is_for_serving_under_its_names_until_its_authority_s_end() -> None:
    authority = make_authority(START, LIFE)
    later = START + LIFE / 2
    made = sign_server(authority, ["a.b.svc", "10.6.0.1", "fd00::1"], later)
    found = x509.load_pem_x509_certificate(made.certificate.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.b.svc"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.6.0.1", "fd00::1"]
    assert span_of(made.certificate) == (later, START + LIFE)
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(ValueError, match="not the certificate's"):
        sign_server(Pair(authority.certificate, make_authority(START, LIFE).key), ["a"], later)
