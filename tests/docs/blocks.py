"""Fenced code blocks of a Markdown document, and what to do with each.

A document runs from top to bottom in one empty folder. What a block is:

    ```python            executed; all of a document's python blocks share one namespace
    ```bash, ```console  executed by bash, `set -e`; of a console block only the lines after `$ `
    anything else        shown, not executed

A comment on the line before the block changes that:

    <!-- file: flights.py -->              the block is written to this file instead
    <!-- not executed: needs a network --> the block is left alone, for this reason
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+|~~~+) *(?P<language>[\w-]*)")
COMMENT = re.compile(r"^ *<!-- *(?P<verb>file|not executed) *: *(?P<value>.*?) *-->")
RUN_BY_BASH = frozenset({"bash", "console", "sh", "shell"})


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        language: after the fence, `python`.
        text: without the fence.
        line: of its first line of text, from 1.
        file: name to write it to; empty for none.
        excluded: why it is not executed; empty when it is.
    """

    language: str
    text: str
    line: int
    file: str = ""
    excluded: str = ""

    @property
    def script(self) -> str:
        """What bash is given."""
        if self.language != "console":
            return self.text
        lines = self.text.splitlines()
        return "\n".join(line[2:] for line in lines if line.startswith("$ "))


def blocks_of(text: str) -> list[Block]:
    """All fenced blocks, in order. Raises ValueError for a fence that is never closed or a comment in vain.

    >>> [(b.language, b.text, b.line) for b in blocks_of("a\\n```python\\nx = 1\\n```\\n")]
    [('python', 'x = 1\\n', 3)]
    """
    blocks = []
    lines = text.splitlines()
    n = 0
    while n < len(lines):
        opening = FENCE.match(lines[n])
        if not opening:
            if COMMENT.match(lines[n]) and not (n + 1 < len(lines) and FENCE.match(lines[n + 1])):
                raise ValueError(f"line {n + 1}: the comment stands before no block")
            n += 1
            continue
        start = n + 1
        closing = opening["indent"] + opening["ticks"]
        try:
            end = next(i for i in range(start, len(lines)) if lines[i].rstrip() == closing)
        except StopIteration:
            raise ValueError(f"line {n + 1}: the block is never closed") from None
        body = "".join(line.removeprefix(opening["indent"]) + "\n" for line in lines[start:end])
        comment = COMMENT.match(lines[n - 1]) if n else None
        verb, value = (comment["verb"], comment["value"]) if comment else ("", "")
        if comment and not value:
            raise ValueError(f"line {n}: {verb!r} needs a value")
        blocks.append(
            Block(
                opening["language"],
                body,
                start + 1,
                file=value if verb == "file" else "",
                excluded=value if verb == "not executed" else "",
            )
        )
        n = end + 1
    return blocks


def documents(root: Path) -> list[Path]:
    """Every document that is executed: those at the root and those below `docs/`."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("benchmarks/*.md")])
