"""Importing an author's modules from their texts, privately: two versions live side by side in one process.

Modules get names of their own (`volano_bundle_1a2b3c4d.flights`), and their imports of each other are
answered from the same texts. `sys.path` is not touched, and nothing of theirs can shadow an installed
package for anybody else.
"""

from __future__ import annotations

import builtins
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from typing import Any, Final

PREFIX: Final = "volano_bundle_"
_LOCK: Final = threading.RLock()


class SourceLoader:
    """The `__loader__` of one author module: gives its text to tracebacks and `inspect`."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_source(self, name: str) -> str:
        """The text of the module, whatever it is called."""
        return self.text


class AuthorModules:
    """The modules of one set of sources, imported when first asked for.

    Args:
        sources: path relative to the root, with forward slashes → text.
        digest: names the private namespace; equal sources, equal digest.
        root: what file names in tracebacks begin with.
    """

    def __init__(self, sources: Mapping[str, str], *, digest: str, root: str) -> None:
        self.package = PREFIX + digest[:16]
        self._root = root
        self._paths = {_module_name(path): path for path in sources if path.endswith(".py")}
        self._texts = {name: sources[path] for name, path in self._paths.items()}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def path(self, name: str) -> str:
        """The path of a module, relative to the root."""
        return self._paths[name]

    def text(self, name: str) -> str:
        """The source of a module."""
        return self._texts[name]

    @property
    def imported(self) -> list[str]:
        """The names of the modules that are imported, in the order in which their import began."""
        start = len(self.package) + 1
        names = [name[start:] for name in sys.modules if name.startswith(self.package + ".")]
        return [name for name in names if name in self._texts]

    def get(self, name: str) -> types.ModuleType:
        """Import a module, or give it again.

        Raises:
            ModuleNotFoundError: the sources have no module of this name.
            Exception: whatever the module raises while it is imported.
        """
        with _LOCK:
            found = sys.modules.get(f"{self.package}.{name}")
            if found is not None:
                return found
            if name not in self._texts and not self._is_folder(name):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            parent, _, last = name.rpartition(".")
            outer = self.get(parent) if parent else self._root_package()
            module = self._execute(name)
            setattr(outer, last, module)
            return module

    def _is_folder(self, name: str) -> bool:
        return any(other.startswith(name + ".") for other in self._texts)

    def _root_package(self) -> types.ModuleType:
        found = sys.modules.get(self.package)
        if found is None:
            found = types.ModuleType(self.package)
            found.__path__ = []
            sys.modules[self.package] = found
        return found

    def _execute(self, name: str) -> types.ModuleType:
        full = f"{self.package}.{name}"
        path, text = self._paths.get(name, f"{name.replace('.', '/')}/__init__.py"), self._texts.get(name, "")
        is_package = path.endswith("__init__.py")
        module = types.ModuleType(full)
        module.__file__ = f"{self._root}{path}"
        module.__package__ = full if is_package else full.rpartition(".")[0]
        if is_package:
            module.__path__ = []
        loader: Any = SourceLoader(text)
        module.__loader__ = loader
        module.__spec__ = ModuleSpec(full, loader, origin=module.__file__, is_package=is_package)
        module.__dict__["__builtins__"] = self._builtins
        sys.modules[full] = module
        try:
            exec(compile(text, module.__file__, "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[full]
            raise
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        """`__import__` as the author's modules see it: their own modules first, then everybody's."""
        target = self._absolute(name, globals, level)
        if target is None or not self._has(target.partition(".")[0] if not level else target):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = self.get(target) if target else self._root_package()
        if not fromlist:
            return found if level else self.get(target.partition(".")[0])
        for item in fromlist:
            child = f"{target}.{item}" if target else item
            if not hasattr(found, item) and self._has(child):
                self.get(child)
        return found

    def _has(self, name: str) -> bool:
        return not name or name in self._texts or self._is_folder(name)

    def _absolute(self, name: str, globals: Mapping[str, Any] | None, level: int) -> str | None:
        """A module's name relative to the root; None when a relative import leaves the sources."""
        if not level:
            return name
        package = str((globals or {}).get("__package__", ""))
        inside = package[len(self.package) :].strip(".")
        parts = inside.split(".") if inside else []
        if level - 1 > len(parts):
            return None
        kept = parts[: len(parts) - (level - 1)]
        return ".".join([*kept, *([name] if name else [])])


def _module_name(path: str) -> str:
    parts = path.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
