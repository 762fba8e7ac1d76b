"""Where things stand in the author's files: names and parts of definitions → lines, from the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeAlias

from volano.compile.loaded import LoadedModule

Step: TypeAlias = str | int

_BLOCKS = (ast.If, ast.Try, ast.With, ast.For, ast.While)


class Places:
    """The module-level names of one module and the syntax that binds them."""

    def __init__(self, module: LoadedModule) -> None:
        self.module = module
        self.tree = ast.parse(module.source)
        self.bindings: dict[str, ast.stmt] = {}
        self.repeated: dict[str, ast.stmt] = {}
        for name, node in _bindings(self.tree.body):
            if name in self.bindings and node in self.tree.body:
                self.repeated[name] = node
            self.bindings[name] = node

    def declares(self, name: str) -> bool:
        """Whether the module itself makes what this name is bound to, rather than importing it."""
        node = self.bindings.get(name)
        return node is not None and not isinstance(node, ast.Import | ast.ImportFrom)

    def line(self, name: str, path: tuple[Step, ...] = ()) -> int:
        """The line of a part of a definition.

        Args:
            name: the module-level name.
            path: steps into it: a keyword, attribute or parameter by name, an element of a list by number. A
                step that the source does not show ends the walk.
        """
        node: ast.AST | None = self.bindings.get(name)
        if node is None:
            return 1
        line = _line(node)
        for step in path:
            node = _descend(node, step)
            if node is None:
                break
            line = _line(node)
        return line


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 1))


def _bindings(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node
            case ast.Assign(targets=targets):
                for target in targets:
                    for child in ast.walk(target):
                        if isinstance(child, ast.Name):
                            yield child.id, node
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                for alias in names:
                    yield alias.asname or alias.name.split(".")[0], node
            case _ if isinstance(node, _BLOCKS):
                for field in ("body", "orelse", "finalbody"):
                    yield from _bindings(getattr(node, field, []))


def _descend(node: ast.AST, step: Step) -> ast.AST | None:
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.keyword) and node.value is not None:
        return _descend(node.value, step)
    match node, step:
        case ast.ClassDef(keywords=keywords, body=body), str():
            named = {keyword.arg: keyword for keyword in keywords}
            return named.get(step) or dict(_bindings(body)).get(step)
        case ast.Call(keywords=keywords), str():
            return {keyword.arg: keyword for keyword in keywords}.get(step)
        case ((ast.List(elts=elements) | ast.Tuple(elts=elements)), int()) if step < len(elements):
            return elements[step]
        case ast.Dict(keys=keys), str():
            return next((key for key in keys if isinstance(key, ast.Constant) and key.value == step), None)
        case ((ast.FunctionDef() | ast.AsyncFunctionDef()), str()):
            return _part_of_function(node, step)
        case _:
            return None


def _part_of_function(node: ast.FunctionDef | ast.AsyncFunctionDef, step: str) -> ast.AST | None:
    if step == "return":
        return node.returns
    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    found = next((argument for argument in arguments if argument.arg == step), None)
    if found is not None:
        return found
    calls = (decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call))
    return next((keyword for call in calls for keyword in call.keywords if keyword.arg == step), None)
