"""Loading an author's project: read it, import it privately, say at which line of theirs it went wrong."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import volano
from volano.compile.loaded import LoadedModule, LoadedProject
from volano.errors import DefinitionError, ProjectError
from volano.runtime.author_modules import AuthorModules
from volano.runtime.bundles import Bundle, encode_bundle
from volano.values.identities import digest

_LOCKS = ("requirements.lock", "requirements.txt", "uv.lock", "poetry.lock", "pdm.lock")
_NOT_DEFINITIONS = re.compile(r"(test_.*|.*_test|conftest|setup|noxfile|tasks)\.py")


def load_project(path: str | Path) -> LoadedProject:
    """Import a project's definitions.

    Args:
        path: the author's file; or a folder, all of whose files that import volano are taken. Helper modules
            beside them (or in packages) are imported as the definitions ask for them.

    Returns:
        The modules, for `compile.project.compile_project`. Its `bundle` is the digest of `pack(path)`.

    Raises:
        ProjectError: there is no project, a file does not parse, or raises while it is imported; every such
            file.
    """
    bundle = read_bundle(path)
    data = encode_bundle(bundle)
    root, _ = _entries(Path(path))
    modules = AuthorModules(bundle.sources, digest=digest(data), root=f"{root}/")
    mistakes = []
    for entry in bundle.entries:
        name = entry.removesuffix(".py").replace("/", ".")
        try:
            modules.get(name)
        except (Exception, SystemExit) as error:
            mistakes.append(_import_mistake(entry, error, bundle, str(root)))
    if mistakes:
        raise ProjectError(_in_order(mistakes))
    entries = [entry.removesuffix(".py").replace("/", ".") for entry in bundle.entries]
    names = list(dict.fromkeys([*entries, *modules.imported]))
    return LoadedProject(
        tuple(LoadedModule(n, modules.path(n), modules.text(n), vars(modules.get(n))) for n in names),
        bundle=digest(data),
    )


def pack(path: str | Path) -> bytes:
    """The bundle of a project: its definitions, every module of the folder that they import, and the lock's
    digest.

    Raises:
        ProjectError: there is no project, or a file does not parse.
    """
    return encode_bundle(read_bundle(path))


def read_bundle(path: str | Path) -> Bundle:
    """Read, without importing anything, all that a project's bundle holds."""
    root, entries = _entries(Path(path))
    sources: dict[str, str] = {}
    mistakes: list[DefinitionError] = []
    waiting = list(entries)
    while waiting:
        file = waiting.pop()
        if file in sources:
            continue
        try:
            sources[file] = (root / file).read_text(encoding="utf-8")
            tree = ast.parse(sources[file], filename=file)
        except (SyntaxError, ValueError) as error:
            mistakes.append(_syntax_mistake(file, error))
            continue
        waiting += [found for found in _imports(tree, file, root) if found not in sources]
    if mistakes:
        raise ProjectError(_in_order(mistakes))
    return Bundle(tuple(entries), dict(sorted(sources.items())), lock=_lock_digest(root))


def _entries(path: Path) -> tuple[Path, list[str]]:
    """The root folder, and the files in it that hold definitions."""
    if path.is_file() and path.suffix == ".py":
        return path.resolve().parent, [path.name]
    if path.is_dir():
        files = sorted(path.glob("*.py"))
        entries = [f.name for f in files if not _NOT_DEFINITIONS.fullmatch(f.name) and _declares(f)]
        if entries:
            return path.resolve(), entries
        what = f"{path.name or path} holds no definitions: no .py file in it imports volano."
    elif path.is_file():
        what = f"{path.name} is not a Python file."
    else:
        what = f"{path.name or path} does not exist."
    mend = "name the file with your definitions, or run `volano init FOLDER` for a new project"
    raise ProjectError((DefinitionError(what, where=str(path), mend=mend),))


def _declares(file: Path) -> bool:
    """Whether a file imports `volano` itself; one that does not parse is taken, so that its mistake is reported.

    A script that drives the project imports `volano.project` and the like, and is no part of it.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return b"volano" in file.read_bytes()
    names = [
        name.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (node.names if isinstance(node, ast.Import) else node.names[:1])
    ]
    return "volano" in names


def _imports(tree: ast.Module, file: str, root: Path) -> list[str]:
    """The files of the project that a module imports, at any depth of its code."""
    names: set[str] = set()
    package = file.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - (node.level - 1)] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names |= {origin} | {f"{origin}.{alias.name}".lstrip(".") for alias in node.names}
    found = []
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            stem = "/".join(parts[:depth])
            found += [f for f in (f"{stem}.py", f"{stem}/__init__.py") if stem and (root / f).is_file()]
    return sorted(set(found))


def _lock_digest(root: Path) -> str:
    found = next((root / name for name in _LOCKS if (root / name).is_file()), None)
    return digest(found.read_bytes()) if found is not None else ""


def _in_order(mistakes: list[DefinitionError]) -> tuple[DefinitionError, ...]:
    def place(mistake: DefinitionError) -> tuple[str, int]:
        file, _, line = mistake.where.rpartition(":")
        return file, int(line) if line.isdigit() else 0

    unique = {(mistake.where, mistake.what): mistake for mistake in mistakes}
    return tuple(sorted(unique.values(), key=place))


def _syntax_mistake(file: str, error: SyntaxError | ValueError) -> DefinitionError:
    if isinstance(error, SyntaxError):
        what = f"{file} is not valid Python: {error.msg}."
        return DefinitionError(
            what, where=f"{file}:{error.lineno or 1}", mend="correct the syntax at this line"
        )
    what = f"{file} cannot be read: {error}."
    return DefinitionError(what, where=f"{file}:1", mend="save the file as UTF-8 text")


def _import_mistake(entry: str, error: BaseException, bundle: Bundle, root: str) -> DefinitionError:
    """What an author's file raised while it was imported, at their own line."""
    file, line = _last_line(error.__traceback__, bundle, root) or (entry, 1)
    said = "".join(traceback.format_exception_only(error)).strip()
    what = f"{file} raised {said}" if said.endswith(".") else f"{file} raised {said}."
    return DefinitionError(what, where=f"{file}:{line}", mend=_import_mend(error, file, line, bundle))


def _last_line(trace: TracebackType | None, bundle: Bundle, root: str) -> tuple[str, int] | None:
    found = None
    for frame, line in traceback.walk_tb(trace):
        file = frame.f_code.co_filename.removeprefix(f"{root}/")
        if file in bundle.sources:
            found = (file, line)
    return found


def _import_mend(error: BaseException, file: str, line: int, bundle: Bundle) -> str:
    match error:
        case ModuleNotFoundError(name=name):
            return (
                f"install {str(name).partition('.')[0]!r} in this environment, or put {name}.py beside {file}"
            )
        case AttributeError(name=str(name), obj=obj) if obj is volano:
            near = difflib.get_close_matches(name, volano.__all__, n=1)
            return f"did you mean vo.{near[0]}?" if near else "vo has no such name; see `help(volano)`"
        case NameError(name=str(name)):
            return f"define {name!r} above this line, or import it"
        case TypeError():
            return _call_mend(error, bundle.sources[file], line)
        case SystemExit():
            return 'a project only declares: put scripts under `if __name__ == "__main__":`'
        case _:
            return "correct this line; declaring should raise nothing"


def _call_mend(error: TypeError, source: str, line: int) -> str:
    """The nearest keyword for a call of ours with one that it does not take, or the call's signature."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.lineno <= line <= (node.end_lineno or 0):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        target: Any = getattr(volano, name, None) if name in volano.__all__ else None
        if not callable(target):
            continue
        known = list(inspect.signature(target).parameters)
        wrong = [k.arg for k in node.keywords if k.arg and k.arg not in known and repr(k.arg) in str(error)]
        near = difflib.get_close_matches(wrong[0], known, n=1) if wrong else []
        if near:
            return f"did you mean {near[0]}=?"
        return f"it takes: {', '.join(known)}"
    return "correct the arguments of this call"
