"""A private certificate authority, for TLS between programs on one machine and for signing media."""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=365)
SIGNER_LIFETIME = timedelta(days=3650)
"""Longer than LIFETIME, because signed files outlive servers."""
RENEWAL = timedelta(days=30)
"""At its start, a server replaces a certificate that is valid for less than this."""
CLOCK_SKEW = timedelta(hours=1)
AUTHORITY = "authority.pem"
ORGANISATION = "Keyreel (self-signed)"
"""The signer that viewers of content credentials display."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two PEM files: the certificate followed by its issuer's, and the private key, which only the owner can read."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """Issues certificates that programs accept if they trust `certificate`. Its private key stays in memory."""

    certificate: Path
    signed: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def issue(self, folder: Path, names: Sequence[str]) -> Certificate:
        """Issues a server's certificate for host names and IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = (
            _builder(_name(names[0]), self.signed.subject, key)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_issuer_key(self.key), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return _write(Certificate(folder / "server.pem", folder / "server.key"), signed, self.signed, key)

    def issue_signer(self, folder: Path) -> Certificate:
        """Issues a certificate that can sign C2PA manifests (C2PA 2.2, section 14.5)."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = (
            _builder(_name("Keyreel, for development", ORGANISATION), self.signed.subject, key, SIGNER_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_issuer_key(self.key), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return _write(Certificate(folder / "signer.pem", folder / "signer.key"), signed, self.signed, key)


def server_certificate(folder: Path, names: Sequence[str]) -> tuple[Certificate, Path]:
    """Returns a server's certificate for `names`, and the authority's.

    Reuses those in `folder` unless they end soon or lack one of the names.
    """
    server, authority = Certificate(folder / "server.pem", folder / "server.key"), folder / AUTHORITY
    if not (server.key.exists() and _is_good(server.certificate, names)):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        server.key.unlink(missing_ok=True)  # first, so that no key remains next to another key's certificate
        make_authority(folder).issue(folder, names)
    return server, authority


def make_bundle(authority: Path, defaults: Path) -> Path:
    """Writes a bundle of `defaults` and `authority`. Most programs read one such file in place of their own list."""
    return join_bundles(authority.with_name("bundle.pem"), defaults, authority)


def join_bundles(to: Path, *bundles: Path) -> Path:
    """Writes the content of all `bundles` to the file `to`, and returns `to`."""
    to.write_bytes(b"\n".join(bundle.read_bytes() for bundle in bundles))
    return to


def make_authority(folder: Path, lifetime: timedelta = LIFETIME) -> Authority:
    """Creates an authority. Its certificates stay valid after the object is gone, but it can issue no more of them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Keyreel, on this machine only")
    signed = (
        _builder(name, name, key, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / AUTHORITY
    path.write_bytes(_pem(signed))
    return Authority(path, signed, key)


def _is_good(path: Path, names: Sequence[str]) -> bool:
    signed = x509.load_pem_x509_certificate(path.read_bytes())
    covered = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    is_fresh = signed.not_valid_after_utc > datetime.now(UTC) + RENEWAL
    return is_fresh and all(_general_name(name) in covered for name in names)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta = LIFETIME
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _name(common: str, organisation: str | None = None) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(
    files: Certificate, signed: x509.Certificate, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> Certificate:
    files.certificate.write_bytes(_pem(signed) + _pem(issuer))
    _write_private(files.key, key)
    return files


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(pem)
