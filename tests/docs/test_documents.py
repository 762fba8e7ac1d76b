"""Every document runs: what it shows is what happens. `blocks.py` says how a block is read."""

from __future__ import annotations

import linecache
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.docs.blocks import RUN_BY_BASH, Block, blocks_of, documents

ROOT = Path(__file__).parents[2]
SHELL_SECONDS = 600
LONG = frozenset(
    {
        "README.md",
        "docs/explain/loop.md",
        "docs/how-to/query-the-lake.md",
        "docs/how-to/second-project.md",
        "docs/how-to/serve.md",
        "docs/reference/lake.md",
    }
)
"""Documents that live through weeks: `make docs` and `make test` run them, `make check` does not."""


class Reader:
    """A person who does what a document says, in an empty folder."""

    def __init__(self, document: str, folder: Path) -> None:
        self.document = document
        self.folder = folder
        self.module = types.ModuleType("document_" + re.sub(r"\W", "_", document))
        sys.modules[self.module.__name__] = self.module

    def follow(self, block: Block) -> None:
        if block.excluded:
            return
        if block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self.execute(block)
        elif block.language in RUN_BY_BASH:
            self.run(block)

    def execute(self, block: Block) -> None:
        """Run in the document's namespace; tracebacks show the document's own lines."""
        name = f"{self.document}:{block.line}"
        padded = "\n" * (block.line - 1) + block.text
        linecache.cache[name] = (len(padded), None, padded.splitlines(keepends=True), name)
        exec(compile(padded, name, "exec"), self.module.__dict__)

    def run(self, block: Block) -> None:
        environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environ["PYTHONPATH"] = str(ROOT / "src")
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.script],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SHELL_SECONDS,
        )
        shown = f"{self.document}:{block.line}: exit {result.returncode}\n{block.script}"
        assert result.returncode == 0, f"{shown}\n--- said\n{result.stdout}{result.stderr}"


@pytest.fixture
def reader_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield lambda document: Reader(document, tmp_path)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if name.startswith("document_") or (file and Path(file).is_relative_to(tmp_path)):
            del sys.modules[name]


def marked(path):
    name = str(path.relative_to(ROOT))
    return pytest.param(path, id=name, marks=[pytest.mark.slow] if name in LONG else [])


@pytest.mark.parametrize("path", [marked(path) for path in documents(ROOT)])
def test_a_document_runs(path, reader_of):
    reader = reader_of(str(path.relative_to(ROOT)))
    for block in blocks_of(path.read_text(encoding="utf-8")):
        reader.follow(block)


@pytest.mark.parametrize("path", documents(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_leads_somewhere(path):
    prose = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = {
        target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target
    }
    missing = {target for target in targets - {""} if not (path.parent / target).exists()}
    assert not missing, f"{path.relative_to(ROOT)} links to what does not exist: {sorted(missing)}"


DOCUMENT = """\
```python
x = 1
```
<!-- file: mine.py -->
```python
y = 2
```
```console
$ test -e mine.py && touch seen
this is what it prints
```
```python
import mine, os
assert x + mine.y == 3 and os.path.exists("seen")
```
<!-- not executed: would fail -->
```python
raise SystemExit
```
"""


def test_blocks_share_a_namespace_and_a_folder(reader_of):
    reader = reader_of("x.md")
    for block in blocks_of(DOCUMENT):
        reader.follow(block)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nassert False\n```", AssertionError),
        ("```bash\nfalse\ntrue\n```", AssertionError),
        ("```console\n$ exit 3\n```", AssertionError),
        ("```python\nx = 1", ValueError),
        ("<!-- not executed: -->\n```python\n1\n```", ValueError),
        ("<!-- not executed: why -->\n\n```python\n1\n```", ValueError),
    ],
)
def test_a_wrong_document_fails(text, error, reader_of):
    reader = reader_of("x.md")
    with pytest.raises(error):
        for block in blocks_of(text):
            reader.follow(block)


def test_a_traceback_names_the_line_of_the_document(reader_of):
    with pytest.raises(ZeroDivisionError) as raised:
        for block in blocks_of("# Title\n\n```python\nx = 0\n1 / x\n```\n"):
            reader_of("x.md").follow(block)
    assert raised.traceback[-1].lineno + 1 == 5
