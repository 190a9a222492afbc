"""TLS to providers: who is spoken to has to prove who it is."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.outbound.addresses import Reachable
from app.outbound.http import Outbound


class Authority:
    """Issues certificates; its own is in `path`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.path = folder / "authority.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: x509.GeneralName, days: int = 1) -> ssl.SSLContext:
        """A server's side, with a certificate for these names that ends so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([]), key, x509.SubjectAlternativeName(names), days=days)
        path = self._folder / "server.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType, days: int = 1
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(extension, critical=True)
            .sign(self._key, hashes.SHA256())
        )


LOCALHOST = x509.DNSName("localhost")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authority]:
    """One that this process trusts, and no other."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.path))
    yield made


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Its port, and the heads of the requests that got through."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


async def status(url: str) -> int:
    outbound = Outbound(Reachable(loopback=True), connect_seconds=5, pool_seconds=5)
    try:
        async with outbound.request("POST", url, headers={}, body=b"refresh_token=rt") as answer:
            return answer.status
    finally:
        await outbound.close()


async def test_a_certificate_for_the_host_is_accepted(authority: Authority) -> None:
    async with serving(authority.server(LOCALHOST)) as (port, heads):
        assert await status(f"https://localhost:{port}/token") == 204
    assert len(heads) == 1


@pytest.mark.parametrize(
    ("names", "days"),
    [
        ([x509.DNSName("idp.example")], 1),
        ([x509.DNSName("*.localhost")], 1),
        ([x509.IPAddress(ip_address("127.0.0.1"))], 1),
        ([LOCALHOST], -1),
    ],
    ids=["another name", "a wildcard", "the address", "expired"],
)
async def test_any_other_certificate_ends_it_before_anything_is_sent(
    authority: Authority, names: list[x509.GeneralName], days: int
) -> None:
    async with serving(authority.server(*names, days=days)) as (port, heads):
        with pytest.raises(aiohttp.ClientConnectorError):
            await status(f"https://localhost:{port}/token")
    assert heads == []


async def test_an_authority_that_is_not_trusted_ends_it_too(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with serving(Authority(tmp_path / "other").server(LOCALHOST)) as (port, heads):
        with pytest.raises(aiohttp.ClientConnectorError):
            await status(f"https://localhost:{port}/token")
    assert heads == []


@pytest.mark.parametrize(
    ("version", "spoken"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)]
)
async def test_tls_is_1_2_at_least(authority: Authority, version: ssl.TLSVersion, spoken: bool) -> None:
    context = authority.server(LOCALHOST)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    async with serving(context) as (port, heads):
        if spoken:
            assert await status(f"https://localhost:{port}/token") == 204
        else:
            with pytest.raises(aiohttp.ClientConnectorError):
                await status(f"https://localhost:{port}/token")
    assert len(heads) == spoken
