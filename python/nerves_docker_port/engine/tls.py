"""TLS with the engine: the context for its connections, and the error for a handshake that failed.

Only the files of the endpoint are used. ``REQUESTS_CA_BUNDLE`` and ``CURL_CA_BUNDLE`` have no effect.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nerves_docker_port import errors
from nerves_docker_port.engine.endpoint import Endpoint, TcpAddress, Tls

# The codes X509_V_ERR_* of OpenSSL (openssl/x509_vfy.h) for a certificate that no trusted authority has signed.
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21, 24, 26, 79)
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME = (62, 64)

# The reasons that OpenSSL gives if the answer to its first message is not TLS, such as "400 Bad Request" over HTTP.
_NOT_TLS = (
    *("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"),
    *("RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"),
)


_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(?:(?!-----BEGIN ).)*?-----END CERTIFICATE-----", re.DOTALL)

_HUNG_UP = (
    *(ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.RemoteDisconnected),
    *(ssl.SSLEOFError, ssl.SSLZeroReturnError),
)


class Context(ssl.SSLContext):
    """A context that knows whether a handshake has succeeded. After one, an error does not mean that TLS is not spoken.

    With TLS 1.3 a server checks the client's certificate only after the client has finished the handshake.
    """

    has_shaken_hands = False

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Call the method of the parent, which includes the handshake."""
        wrapped = super().wrap_socket(*args, **kwargs)
        self.has_shaken_hands = True
        return wrapped


def context(tls: Tls) -> Context:
    """Return the context for connections to the engine, with the same rules as the CLI. Raises ``RunnerError``.

    The CLI is written in Go. Go trusts every certificate in ``ca.pem``, even if it is of an intermediate authority or
    of the engine itself. It only checks the alternative names of a certificate, and never the common name.
    """
    made = Context(ssl.PROTOCOL_TLS_CLIENT)
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.hostname_checks_common_name = False
    if tls.authority is not None:
        _trust(made, tls.authority, tls.origin)
    else:
        made.load_default_certs()
    if tls.certificate is not None and tls.key is not None:
        _identify(made, tls.certificate, tls.key, tls.origin)
    if not tls.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _trust(made: ssl.SSLContext, authority: Path, origin: str) -> None:
    try:
        # The certificates are ASCII. The comments between them can be in any language and are ignored.
        text = authority.read_bytes().decode("ascii", "ignore")
    except OSError as error:
        raise errors.tls_file(str(authority), origin, str(error.strerror)) from error
    # The certificates are loaded one by one, so that one that cannot be read does not prevent the use of the others. Go
    # does the same (`AppendCertsFromPEM`).
    trusted = 0
    for certificate in _CERTIFICATE.findall(text):
        with suppress(ssl.SSLError, ValueError):
            made.load_verify_locations(cadata=certificate)
            trusted += 1
    if not trusted:
        raise errors.tls_file(str(authority), origin, "it holds no certificate")


def _identify(made: ssl.SSLContext, certificate: Path, key: Path, origin: str) -> None:
    def no_password() -> str:
        # Without this, OpenSSL would ask for a passphrase at the terminal.
        raise _EncryptedError

    try:
        made.load_cert_chain(certificate, key, no_password)
    except _EncryptedError as error:
        raise errors.tls_file(str(key), origin, "it is encrypted with a passphrase") from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise errors.tls_file(str(key), origin, f"it is not the key of {certificate}") from error
        wrong, kind = (key, "private key") if _has_certificate(certificate) else (certificate, "certificate")
        raise errors.tls_file(str(wrong), origin, f"it holds no {kind} that can be used") from error
    except OSError as error:
        raise errors.tls_file(str(key), origin, str(error.strerror)) from error


class _EncryptedError(Exception):
    """The private key is encrypted."""


def _has_certificate(path: Path) -> bool:
    try:
        ssl.PEM_cert_to_DER_cert(path.read_text("ascii", "ignore").strip())
        ssl.create_default_context(cadata=path.read_text("ascii", "ignore"))
    except (ValueError, OSError):
        return False
    return True


def failure(endpoint: Endpoint, used: Context, causes: Iterable[BaseException]) -> errors.RunnerError | None:
    """Return the error for a first request that failed because of TLS, or ``None`` if it failed for another reason.

    ``used`` is the context of the connection. ``causes`` are the exception and all exceptions inside it.
    """
    tls, address = endpoint.tls, endpoint.address
    assert tls is not None
    assert isinstance(address, TcpAddress)
    every = list(causes)
    error = next((cause for cause in every if isinstance(cause, ssl.SSLError)), None)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _verification(endpoint, tls, address, error)
    certificate = None if tls.certificate is None else str(tls.certificate)
    reason = (error.reason or str(error)) if error is not None else ""
    if "PROTOCOL_VERSION" in reason or reason == "UNSUPPORTED_PROTOCOL":
        return errors.tls_too_old(endpoint.url, endpoint.origin)
    if "ALERT" in reason:
        return errors.tls_refused(endpoint.url, endpoint.origin, certificate, reason.lower().replace("_", " "))
    if used.has_shaken_hands and any(isinstance(cause, _HUNG_UP) for cause in every):
        return errors.tls_refused(endpoint.url, endpoint.origin, certificate, "it hung up after the handshake")
    if reason in _NOT_TLS or isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return errors.tls_not_spoken(endpoint.url, endpoint.origin, tls.origin)
    return None if error is None else errors.tls_failed(endpoint.url, endpoint.origin, address.peer, reason)


def _verification(
    endpoint: Endpoint, tls: Tls, address: TcpAddress, error: ssl.SSLCertVerificationError
) -> errors.RunnerError:
    authority = None if tls.authority is None else str(tls.authority)
    if error.verify_code in _WRONG_NAME:
        return errors.tls_wrong_name(endpoint.url, endpoint.origin, address.host, address.peer)
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        what = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
        return errors.tls_wrong_time(endpoint.url, endpoint.origin, what)
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return errors.tls_unknown_authority(endpoint.url, endpoint.origin, authority, error.verify_message)
    return errors.tls_failed(endpoint.url, endpoint.origin, address.peer, error.verify_message)
