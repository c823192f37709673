"""Who may ask: keys from a file or the environment, and the names under which a local server answers."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from koalpaca_tune.errors import KoalpacaError
from koalpaca_tune.serving.refusal import Refusal

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
SHORTEST_KEY = 8


@dataclass(frozen=True)
class Doors:
    """What is asked of a request before it is read.

    Attributes:
        digests: SHA-256 of the keys; empty: no key is asked for.
        names: host names by which the server may be called; empty: any. A page in a browser can reach a local
            server under a name of its own (DNS rebinding).
    """

    digests: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()

    def check_name(self, host: str) -> None:
        """Looks at the Host header.

        Raises:
            Refusal: another name (421).
        """
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self.names and name.lower() not in self.names:
            raise Refusal(
                421, "wrong_host", f"this server answers to {', '.join(self.names)}, not to '{name[:100]}'."
            )

    def check_key(self, authorization: str) -> None:
        """Looks at the Authorization header.

        Raises:
            Refusal: no key, or a wrong one (401).
        """
        if not self.digests:
            return
        scheme, _, key = authorization.partition(" ")
        given = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        # all are compared, so that the time tells nothing
        found = [hmac.compare_digest(given, digest) for digest in self.digests]
        if scheme.lower() != "bearer" or not any(found):
            raise Refusal(
                401,
                "invalid_api_key",
                "the request has no key that this server knows (Authorization: Bearer KEY).",
                headers={"WWW-Authenticate": "Bearer"},
            )


def doors(host: str, *, key_env: str | None, key_file: Path | None) -> Doors:
    """The doors of a server at an address.

    Args:
        host: address to listen at.
        key_env: environment variable that holds a key.
        key_file: file with a key on each line.

    Raises:
        KoalpacaError: no key there (serve-key), or others could ask without one (serve-open).
    """
    keys = [*_from_env(key_env), *_from_file(key_file)]
    local = is_local(host)
    if not keys and not local:
        raise KoalpacaError(
            "serve-open",
            "others could use the model without a key.",
            where=f"--host {host}",
            fix="Give --api-key-file FILE or --api-key-env NAME, or listen at 127.0.0.1.",
        )
    digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)
    return Doors(digests, LOCAL_NAMES if local else ())


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _from_env(name: str | None) -> Sequence[str]:
    return [] if name is None else _checked([os.environ.get(name, "")], name)


def _from_file(path: Path | None) -> Sequence[str]:
    if path is None:
        return []
    try:
        return _checked(path.read_text(encoding="utf-8-sig").splitlines(), str(path))
    except UnicodeDecodeError as error:
        raise _no_key(str(path), "it is not UTF-8") from error


def _checked(lines: Sequence[str], where: str) -> Sequence[str]:
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise _no_key(where, "it holds no key")
    if any(len(key) < SHORTEST_KEY or not key.isascii() or " " in key for key in keys):
        # not repeated: it may be most of a key
        raise _no_key(where, f"a key has under {SHORTEST_KEY} characters, a space or a letter outside ASCII")
    return keys


def _no_key(where: str, what: str) -> KoalpacaError:
    return KoalpacaError("serve-key", f"{what}.", where=where, fix="Make one: openssl rand -hex 24")
