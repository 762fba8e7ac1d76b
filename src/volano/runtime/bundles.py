"""Bundles: a project's sources as one content-addressed file, and their code, old versions beside new ones.

A bundle is canonical JSON: equal sources and lock give equal bytes on every machine. Nothing is pickled: a
function is a module's name and a name in it.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any, Final

import msgspec

from volano.errors import AuthorCodeError, CorruptionError, UnknownNameError
from volano.plan.definitions import CodeRef
from volano.runtime.author_modules import AuthorModules
from volano.spec.on_demand import OnDemand
from volano.spec.projection import Projection
from volano.values.identities import digest

_VERSION: Final = 1
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class Bundle(msgspec.Struct, frozen=True):
    """The content of a bundle.

    Args:
        entries: the modules that hold definitions, by path.
        sources: path relative to the project's root, with forward slashes → text.
        lock: digest of the locked requirements; empty when unknown.
    """

    entries: tuple[str, ...]
    sources: dict[str, str]
    lock: str = ""
    version: int = _VERSION


def encode_bundle(bundle: Bundle) -> bytes:
    """The canonical bytes of a bundle; their digest is its address.

    >>> bundle = Bundle(("a.py",), {"a.py": "x = 1"})
    >>> decode_bundle(encode_bundle(bundle)) == bundle
    True
    """
    return _ENCODER.encode(bundle)


def decode_bundle(data: bytes) -> Bundle:
    """The bundle of some bytes.

    Raises:
        CorruptionError: they are not a bundle, or one of a newer format.
    """
    try:
        bundle = msgspec.json.decode(data, type=Bundle)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise CorruptionError(
            f"These bytes are not a bundle: {error}",
            where=digest(data)[:12],
            mend="restore the artifact from a backup, or apply the project again",
        ) from error
    if bundle.version > _VERSION:
        raise CorruptionError(
            f"The bundle has format {bundle.version}, this Volano reads up to {_VERSION}.",
            where=digest(data)[:12],
            mend="upgrade Volano",
        )
    return bundle


class LoadedBundle:
    """A bundle whose code can be called. Satisfies `protocols.Functions`.

    Args:
        bundle: its content.
        digest: its address.
    """

    def __init__(self, bundle: Bundle, *, digest: str) -> None:
        self.bundle = bundle
        self.digest = digest
        self._modules = AuthorModules(bundle.sources, digest=digest, root=f"<bundle {digest[:12]}>/")
        self._functions: dict[tuple[str, str], Callable[..., Any]] = {}

    def get(self, code: CodeRef) -> Callable[..., Any]:
        """The function that a reference names; what it raises comes out as AuthorCodeError, their traceback
        as its cause.

        Raises:
            UnknownNameError: the bundle has no such function.
            AuthorCodeError: the module fails to import.
        """
        key = (code.module, code.qualname)
        if key not in self._functions:
            self._functions[key] = self._load(code)
        return self._functions[key]

    def _load(self, code: CodeRef) -> Callable[..., Any]:
        try:
            module = self._modules.get(code.module)
        except ModuleNotFoundError as error:
            if error.name == code.module:
                raise self._unknown(code) from None
            raise _wrapped(f"Importing {code.module}", error, self._modules.package) from error
        except Exception as error:
            raise _wrapped(f"Importing {code.module}", error, self._modules.package) from error
        value = getattr(module, code.qualname, None)
        function = value.function if isinstance(value, OnDemand | Projection) else value
        if not callable(function):
            raise self._unknown(code)
        return _guarded(function, f"{code.module}.{code.qualname}", self._modules.package)

    def _unknown(self, code: CodeRef) -> UnknownNameError:
        return UnknownNameError(
            f"Bundle {self.digest[:12]} has no function {code.module}.{code.qualname}.",
            where=self.digest,
            mend="apply the project again; the plan and the bundle must belong together",
        )


def open_bundle(data: bytes) -> LoadedBundle:
    """Open a bundle; its modules are imported when a function is first asked for.

    Raises:
        CorruptionError: the bytes are not a bundle.
    """
    return LoadedBundle(decode_bundle(data), digest=digest(data))


def _guarded(function: Callable[..., Any], name: str, package: str) -> Callable[..., Any]:
    """The function behind the one boundary that author code is called through."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise _wrapped(name, error, package) from error

    return call


def _wrapped(name: str, error: BaseException, package: str) -> AuthorCodeError:
    """An author's exception as ours: their last line is the place, our frames are taken off the traceback."""
    where = ""
    trace = error.__traceback__
    theirs = None
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith(package):
            theirs = theirs or trace
            where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    if theirs is not None:
        error.__traceback__ = theirs
    said = "".join(traceback.format_exception_only(error)).strip()
    return AuthorCodeError(f"{name} raised {said}", where=where, mend="correct the function, and apply again")
