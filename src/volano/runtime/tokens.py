"""API tokens: who may do what over HTTP. Only a digest of each is stored; the token itself is shown once.

A token is 32 random bytes, so a plain digest is enough: there is nothing to guess.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Collection
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from volano.errors import RequestError, UnknownNameError
from volano.protocols.catalog import CatalogReader, CatalogWriter
from volano.values.instants import Instant

_KIND: Final = "token"
_PREFIX: Final = "vol_"


class Role(StrEnum):
    """What a token may do. `ADMIN` may do everything."""

    DECIDE = "decide"
    OBSERVE = "observe"
    READ = "read"
    REVIEW = "review"
    RELEASE = "release"
    ADMIN = "admin"


class Token(msgspec.Struct, frozen=True):
    """What is kept of a token.

    Args:
        name: who uses it; unique.
        digest: SHA-256 of the token, hexadecimal.
        roles: what it may do.
        names: the decisions and sources it is limited to; all when empty.
        revoked_at: since when it counts no more.
    """

    name: str
    digest: str
    roles: tuple[Role, ...]
    names: tuple[str, ...] = ()
    created_at: Instant = 0
    revoked_at: Instant | None = None

    def may(self, role: Role, name: str = "") -> bool:
        """Whether the token allows a role: on a decision or source, or (without a name) on any at all."""
        if self.revoked_at is not None or not {role, Role.ADMIN} & set(self.roles):
            return False
        return not name or not self.names or name in self.names


class Tokens:
    """The tokens of a project, as read at one moment.

    >>> known = Token("shop", _digest("vol_secret"), (Role.OBSERVE,), names=("clicks",))
    >>> found = Tokens([known]).find("vol_secret")
    >>> found.may(Role.OBSERVE, "clicks"), found.may(Role.OBSERVE, "orders"), found.may(Role.DECIDE, "clicks")
    (True, False, False)
    """

    def __init__(self, tokens: Collection[Token]) -> None:
        self._by_digest = {token.digest: token for token in tokens if token.revoked_at is None}
        self.are_used = bool(tokens)
        """Whether there ever was one: revoking the last one must not open the door to everybody."""

    def __len__(self) -> int:
        return len(self._by_digest)

    def find(self, secret: str) -> Token | None:
        """The token of a secret; None when it is unknown or revoked."""
        wanted = _digest(secret)
        token = self._by_digest.get(wanted)
        return token if token is not None and hmac.compare_digest(token.digest, wanted) else None


def create_token(
    catalog: CatalogWriter,
    name: str,
    roles: Collection[Role],
    *,
    names: Collection[str] = (),
    at: Instant,
    entropy: Callable[[int], bytes],
) -> str:
    """Make a token and keep its digest; returns the token, which nobody can show again.

    Raises:
        RequestError: no role is given.
        ConflictError: there is a token of this name.
    """
    if not roles:
        raise RequestError("A token without a role may do nothing.", mend=f"roles: {', '.join(Role)}")
    secret = _PREFIX + base64.urlsafe_b64encode(entropy(32)).decode().rstrip("=")
    token = Token(name, _digest(secret), tuple(sorted(roles)), tuple(sorted(names)), at)
    catalog.put(_KIND, name, msgspec.json.encode(token), expected=0)
    return secret


def parse_roles(words: Collection[str]) -> tuple[Role, ...]:
    """Roles by name.

    Raises:
        RequestError: one of them is none.
    """
    unknown = [word for word in words if word not in set(Role)]
    if unknown:
        raise RequestError(f"There is no role {unknown[0]!r}.", mend=f"roles: {', '.join(Role)}")
    return tuple(Role(word) for word in words)


def revoke_token(catalog: CatalogWriter, name: str, *, at: Instant) -> Token:
    """Let a token count no more, within a second in every worker.

    Raises:
        UnknownNameError: there is no such token.
    """
    found = catalog.find(_KIND, name)
    if found is None:
        raise UnknownNameError(f"There is no token named {name!r}.", mend="see `volano token list`")
    token = msgspec.json.decode(found.body, type=Token)
    if token.revoked_at is None:
        token = msgspec.structs.replace(token, revoked_at=at)
        catalog.put(_KIND, name, msgspec.json.encode(token), expected=found.revision)
    return token


def list_tokens(catalog: CatalogReader) -> list[Token]:
    """Every token there ever was, by name."""
    return [msgspec.json.decode(document.body, type=Token) for document in catalog.documents(_KIND)]


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
