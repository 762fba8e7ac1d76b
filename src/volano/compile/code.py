"""Author functions by reference, and the rules that their source must keep.

A function's hash covers its own source and, through names, all that it refers to in the project. So an edit
elsewhere in the file changes no feature, and an edit of a helper that the function calls does. Comments and
layout do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Final

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
    parts = dict(_closure(at.binding, at.places, _modules(ctx)))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        _check_purity(node, at, ctx)
    source = "\n".join(f"{name}={text}" for name, text in sorted(parts.items()))
    return CodeRef(at.module.name, at.binding, digest(source.encode()))


def _modules(ctx: Context) -> dict[str, Places]:
    return {definition.module.name: definition.places for definition in ctx.definitions.values()}


def _closure(
    name: str, places: Places, modules: Mapping[str, Places], seen: set[tuple[str, str]] | None = None
) -> Iterator[tuple[str, str]]:
    """(module.name, canonical source) of a module-level name and of everything it refers to."""
    seen = set() if seen is None else seen
    if (places.module.name, name) in seen or name not in places.bindings:
        return
    seen.add((places.module.name, name))
    node = places.bindings[name]
    if isinstance(node, ast.ImportFrom):
        origin = modules.get((node.module or "").lstrip("."))
        original = next((a.name for a in node.names if (a.asname or a.name) == name), name)
        if origin is not None:
            yield from _closure(original, origin, modules, seen)
            return
    if isinstance(node, ast.Import):
        target = modules.get(name)
        if target is not None:
            yield target.module.name, ast.dump(target.tree)
            return
    body = _body(node)
    yield f"{places.module.name}.{name}", "\n".join(ast.dump(part) for part in body)
    for part in body:
        for child in ast.walk(part):
            if isinstance(child, ast.Name):
                yield from _closure(child.id, places, modules, seen)


def _body(node: ast.stmt) -> list[ast.AST]:
    """What decides a result: not decorators, annotations and defaults, which the definition holds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        named: list[ast.AST] = [ast.Constant(argument.arg) for argument in arguments]
        return [*named, *node.body]
    return [node]


def _check_purity(function: ast.FunctionDef | ast.AsyncFunctionDef, at: Definition, ctx: Context) -> None:
    imported = _imported(at.places.tree) | _imported(function)
    for node in ast.walk(function):
        if not isinstance(node, ast.Attribute | ast.Name):
            continue
        called = _dotted(node, imported)
        if _CLOCK.fullmatch(called):
            what, mend = (
                "reads the clock",
                "time arrives as an argument: read a datetime field of the request",
            )
        elif _CHANCE.fullmatch(called):
            what, mend = "draws at random", "the result must depend on the arguments alone"
        else:
            continue
        what = f"{ctx.title(at)} {what}: {ast.unparse(node)}."
        ctx.report.mistake(what, file=at.module.file, line=node.lineno, mend=mend)


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
