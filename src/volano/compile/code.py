"""Author functions by reference, and the rules that their source must keep.

A function's hash covers its own source and, through names, all that it refers to in the project. So an edit
elsewhere in the file changes no feature, and an edit of a helper that the function calls does. Comments and
layout do not count.
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from volano.compile.context import Context
from volano.compile.places import Places
from volano.compile.resolve import Definition
from volano.plan.definitions import CodeRef
from volano.values.identities import digest

_CLOCK: Final = re.compile(
    r"time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|localtime|gmtime)"
    r"|datetime\.(datetime\.)?(now|utcnow|today)|datetime\.date\.today"
    r"|pandas\.Timestamp\.(now|utcnow|today)|pandas\.to_datetime\.now"
)
_CHANCE: Final = re.compile(
    r"random\.\w+|secrets\.\w+|os\.urandom|uuid\.uuid[1-8]|numpy\.random\.\w+(\.\w+)?"
)


def code_ref(at: Definition, ctx: Context) -> CodeRef:
    """The reference to the function of an on-demand feature or projection, and its rules checked."""
    node = at.places.bindings.get(at.binding)
    seen = {f"{at.module.name}.{at.binding}"}
    parts = {}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        # Annotations and defaults are in the definition itself; what they name does not change the result.
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        parts["("] = ", ".join(argument.arg for argument in arguments)
        found = [(f"{line}", statement, at.places) for line, statement in enumerate(node.body)]
        found += [more for part in node.body for more in _named_in(part, at.places, ctx.modules, seen)]
    else:
        found = list(_closure(at.binding, at.places, ctx.modules, set()))
    for name, statement, places in found:
        parts[name] = _canonical(statement, places)
        _check_purity(statement, places, at, ctx)
    source = "\n".join(f"{name}:\n{text}" for name, text in sorted(parts.items()))
    return CodeRef(at.module.name, at.binding, digest(source.encode()))


def function_ref(function: object, ctx: Context) -> CodeRef | None:
    """The reference to a plain function of the project, or None when no module declares it. Its rules are its own."""
    for name, places in ctx.modules.items():
        for binding, value in places.module.values.items():
            if value is function and isinstance(places.bindings.get(binding), ast.FunctionDef):
                found = _closure(binding, places, ctx.modules, set())
                texts = sorted(f"{key}:\n{_canonical(node, of)}" for key, node, of in found)
                return CodeRef(name, binding, digest("\n".join(texts).encode()))
    return None


_Found: TypeAlias = tuple[str, ast.stmt, Places]


def _closure(name: str, places: Places, modules: Mapping[str, Places], seen: set[str]) -> Iterator[_Found]:
    """A module-level name and all that it refers to in the project: (module.name, statement, module)."""
    key = f"{places.module.name}.{name}"
    if key in seen or name not in places.bindings:
        return
    seen.add(key)
    node = places.bindings[name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _imported_from(node, name, places, modules, seen)
        return
    yield key, node, places
    yield from _named_in(node, places, modules, seen)


def _named_in(
    node: ast.stmt, places: Places, modules: Mapping[str, Places], seen: set[str]
) -> Iterator[_Found]:
    for child in ast.walk(node):
        if isinstance(child, ast.Name):
            yield from _closure(child.id, places, modules, seen)
        elif isinstance(child, ast.Import | ast.ImportFrom):
            yield from _imported_from(child, "", places, modules, seen)


def _imported_from(
    node: ast.Import | ast.ImportFrom,
    name: str,
    places: Places,
    modules: Mapping[str, Places],
    seen: set[str],
) -> Iterator[_Found]:
    """What an import brings in from the project: a name of a module, or a whole module; every alias without a name."""
    aliases = [alias for alias in node.names if name in ("", alias.asname or alias.name.split(".")[0])]
    for alias in aliases:
        if isinstance(node, ast.Import):
            yield from _whole(alias.name, modules, seen)
            continue
        origin = _origin(node, places)
        if origin in modules and alias.name in modules[origin].bindings:
            yield from _closure(alias.name, modules[origin], modules, seen)
        else:
            yield from _whole(f"{origin}.{alias.name}".strip("."), modules, seen)


def _whole(name: str, modules: Mapping[str, Places], seen: set[str]) -> Iterator[_Found]:
    if name in modules:
        for binding in modules[name].bindings:
            yield from _closure(binding, modules[name], modules, seen)


def _origin(node: ast.ImportFrom, places: Places) -> str:
    """The module that a `from ... import` names, relative to the project's root."""
    if not node.level:
        return node.module or ""
    is_package = places.module.file.endswith("__init__.py")
    parts = places.module.name.split(".")
    kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _canonical(node: ast.stmt, places: Places) -> str:
    """The statement's text without decorators, comments and blank lines; the same under every Python version."""
    text = textwrap.dedent(ast.get_source_segment(places.module.source, node, padded=True) or "")
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _check_purity(node: ast.stmt, places: Places, at: Definition, ctx: Context) -> None:
    imported = _imported(places.tree)
    for child in ast.walk(node):
        if not isinstance(child, ast.Attribute | ast.Name):
            continue
        called = _dotted(child, imported)
        if _CLOCK.fullmatch(called):
            what, mend = (
                "reads the clock",
                "time arrives as an argument: read a datetime field of the request",
            )
        elif _CHANCE.fullmatch(called):
            what, mend = "draws at random", "the result must depend on the arguments alone"
        else:
            continue
        what = f"{ctx.title(at)} {what}: {ast.unparse(child)}."
        ctx.report.mistake(what, file=places.module.file, line=child.lineno, mend=mend)


def _imported(tree: ast.AST) -> dict[str, str]:
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(
                {
                    a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0]
                    for a in node.names
                }
            )
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    return names


def _dotted(node: ast.expr, imported: Mapping[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in imported:
        return ""
    return ".".join([imported[node.id], *reversed(parts)])
