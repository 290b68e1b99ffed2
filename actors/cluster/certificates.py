"""Making certificates: our own authority, the leader's certificate and the agents'.

Home of `cryptography`, which costs memory: only controllers import this.
What must always hold: a certificate is for one side only (extended key usage), so an agent cannot pose as the leader;
one that has used up two thirds of its life is due to be replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from actors.cluster.credentials import SERVER_NAME
from actors.errors import InvalidObject

_SKEW = timedelta(hours=1)
"""A certificate is valid from before it is made: clocks of nodes differ."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, in PEM."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "<Pair>"


def make_authority(now: datetime, life: timedelta) -> Pair:
    """A new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"orbweaver authority {now:%Y-%m-%dT%H:%M:%S.%fZ}")]
    )
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _builder(name, name, key, now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _signed(builder, key, key)


def issue(authority: Pair, name: str, now: datetime, life: timedelta, *, server: bool) -> Pair:
    """A certificate for the leader (`server`) or for clients; it does not outlive its authority."""
    parent = _read(authority.certificate)
    signer = serialization.load_pem_private_key(authority.key.encode(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise InvalidObject("the authority's key is of another kind than this version makes")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    life = min(life, parent.not_valid_after_utc - now)
    builder = (
        _builder(subject, parent.subject, key, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if server:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False
        )
    return _signed(builder, key, signer)


def is_due(certificate: str, now: datetime) -> bool:
    """Whether two thirds of its life are over."""
    read = _read(certificate)
    begin, end = read.not_valid_before_utc, read.not_valid_after_utc
    return now >= begin + (end - begin) * 2 / 3


def is_over(certificate: str, now: datetime) -> bool:
    """Whether nobody accepts it any more."""
    return now >= _read(certificate).not_valid_after_utc


def age(certificate: str, now: datetime) -> timedelta:
    """Since when it exists."""
    return now - _read(certificate).not_valid_before_utc - _SKEW


def is_issued_by(certificate: str, authority: str) -> bool:
    """Whether the authority signed it."""
    return _read(certificate).issuer == _read(authority).subject


def _read(certificate: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate.encode())
    except ValueError as error:
        raise InvalidObject(
            f"a certificate of ours cannot be read: {error}; delete the Secret that holds it, and a new one is made"
        ) from error


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> Pair:
    certificate = builder.sign(signer, hashes.SHA256())
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


def utc_now() -> datetime:
    """The time that certificates are compared with."""
    return datetime.now(UTC)
