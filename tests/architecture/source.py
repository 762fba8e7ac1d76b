"""The project's source as syntax trees, names resolved through their imports. Imports nothing it reads."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "volano"


@dataclass(frozen=True)
class Module:
    """One source file.

    Args:
        name: dotted name, `volano.kernels.windows`.
        text: its source.
        is_package: whether it is an `__init__.py`.
        shown: how messages name it.
    """

    name: str
    text: str
    is_package: bool = False
    shown: str = "<snippet>"

    @property
    def area(self) -> str:
        """The first name below `volano`; empty for `volano` itself."""
        return [*self.name.split("."), ""][1]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def comments(self) -> dict[int, str]:
        """Line → comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}

    @cached_property
    def imports(self) -> list[tuple[int, str, str]]:
        """Every import, at any depth, as (line, name bound here, dotted target)."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.split(".")[0]
                    target = alias.name if alias.asname else bound
                    found.append((node.lineno, bound, target))
                    if target != alias.name:
                        found.append((node.lineno, bound, alias.name))
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(node)
                found += [(node.lineno, a.asname or a.name, f"{origin}.{a.name}") for a in node.names]
        return found

    def _origin(self, node: ast.ImportFrom) -> str:
        """`from ..x import y` as an absolute name."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        kept = parts[: len(parts) - node.level + (1 if self.is_package else 0)]
        return ".".join([*kept, *([node.module] if node.module else [])])

    @cached_property
    def references(self) -> list[tuple[int, str]]:
        """Every use of an imported name, with what follows it: (line, `datetime.datetime.now`)."""
        bound = {name: target for _, name, target in reversed(self.imports)}
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                head, *rest = _dotted(node)
                if head in bound:
                    found.append((node.lineno, ".".join([bound[head], *rest])))
        return found


def _dotted(node: ast.expr) -> list[str]:
    """`a.b.c` as parts; an empty first part when it does not start at a name."""
    rest: list[str] = []
    while isinstance(node, ast.Attribute):
        rest.insert(0, node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *rest]


TEMPLATES = PACKAGE / "templates"
"""Projects to begin with: an author's code, which keeps the author's rules and not ours."""


def modules() -> Iterator[Module]:
    """Every module of the package but the templates, sorted by path."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(TEMPLATES):
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        yield Module(name, path.read_text(encoding="utf-8"), is_package, str(path.relative_to(ROOT)))
