"""The certificates with which the stand-in answers for fal's hosts."""

import ssl
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from keyreel.fal.hosts import PREFIXES, is_fals
from keyreel.net.certificates import Authority


def make_identity(authority: Authority, folder: Path) -> ssl.SSLContext:
    """Returns a TLS context for fal's hosts, with files in `folder`.

    A program can be told that a host is refused only after it has accepted a certificate for it. So each further host
    below fal's domains gets one when it is first named.
    """

    @cache
    def identity_for(*names: str) -> ssl.SSLContext:
        certificate = authority.issue(Path(mkdtemp(dir=folder)), names)
        identity = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        identity.load_cert_chain(certificate.certificate, certificate.key)
        return identity

    def choose(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name and name not in PREFIXES and is_fals(name):
            connection.context = identity_for(name)

    known = identity_for(*PREFIXES)
    known.sni_callback = choose
    return known
