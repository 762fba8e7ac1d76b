"""What authors say about their definitions in words: docstrings and comments, from the text of their files. Pure.

A class says it in its docstring, and of a field in the comment behind it. A definition such as
`orders = vo.Source("orders", ...)` says it in a text on the next line, or in the comment lines above it.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_KINDS = {"Source", "Entity", "Label", "Decision", "Model", "Requests"}


class Comments(NamedTuple):
    """Words by definition.

    Args:
        classes: of events, requests and views, by class name.
        fields: of their fields, by class name and field.
        definitions: of the others, by kind and name: `("Source", "orders")`.
    """

    classes: Mapping[str, str]
    fields: Mapping[tuple[str, str], str]
    definitions: Mapping[tuple[str, str], str]


def comments_of(texts: Iterable[str]) -> Comments:
    """The words of some files; what does not parse says nothing.

    >>> found = comments_of(['''
    ... class Landing(vo.Event, id="flight_id"):
    ...     "A plane came down."
    ...     arr_delay: float  # minutes
    ... # Pushed by the tower.
    ... landings = vo.Source("landings", Landing, stream=True)
    ... '''])
    >>> found.classes["Landing"], found.fields["Landing", "arr_delay"], found.definitions["Source", "landings"]
    ('A plane came down.', 'minutes', 'Pushed by the tower.')
    """
    found = Comments({}, {}, {})
    for text in texts:
        try:
            body = ast.parse(text).body
            behind, alone = _comments(text)
        except (SyntaxError, ValueError, tokenize.TokenError):
            continue
        for node, after in zip(body, [*body[1:], None], strict=True):
            _read(node, after, behind, alone, found)
    return found


def _read(
    node: ast.stmt, after: ast.stmt | None, behind: dict[int, str], alone: dict[int, str], found: Comments
) -> None:
    match node:
        case ast.ClassDef(name=name, body=body):
            said = ast.get_docstring(node) or _above(node, alone)
            if said:
                found.classes[name] = " ".join(said.split())  # type: ignore[index]
            for each in body:
                if isinstance(each, ast.AnnAssign | ast.Assign) and each.end_lineno in behind:
                    target = each.target if isinstance(each, ast.AnnAssign) else each.targets[0]
                    if isinstance(target, ast.Name):
                        found.fields[name, target.id] = behind[each.end_lineno]  # type: ignore[index]
        case ast.Assign(value=ast.Call(func=function, args=[ast.Constant(value=str(named)), *_])):
            kind = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if kind in _KINDS:
                said = _text(after) or _above(node, alone) or behind.get(node.end_lineno or 0, "")
                if said:
                    found.definitions[kind, named] = " ".join(said.split())  # type: ignore[index]


def _comments(text: str) -> tuple[dict[int, str], dict[int, str]]:
    """Comments by line: those behind code, and those on lines of their own."""
    behind: dict[int, str] = {}
    alone: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(
            ("#!", "# noqa", "# type:", "# fmt")
        ):
            is_alone = not token.line[: token.start[1]].strip()
            (alone if is_alone else behind)[token.start[0]] = token.string.lstrip("# ").strip()
    return behind, alone


def _above(node: ast.stmt, alone: Mapping[int, str]) -> str:
    """The comment lines right above a statement."""
    line = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))]) - 1
    said: list[str] = []
    while line in alone:
        said.insert(0, alone[line])
        line -= 1
    return " ".join(said)


def _text(node: ast.stmt | None) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str(said))):
            return said
    return ""
