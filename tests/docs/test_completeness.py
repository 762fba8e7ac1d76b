"""Everything that a user can type is documented: public names, commands, flags, configuration keys.

Each test waits for its subject, and fails when the subject exists but is not where the test looks for it.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.docs.blocks import documents

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "volano"


def documented_words() -> set[str]:
    """Words of all documents but the decision records, which speak of what is no more."""
    pages = [page for page in documents(ROOT) if "decisions" not in page.parts]
    return set(
        re.findall(r"-{0,2}[A-Za-z_][\w-]*", " ".join(page.read_text(encoding="utf-8") for page in pages))
    )


def undocumented(wanted: set[str]) -> list[str]:
    return sorted(wanted - documented_words())


def test_every_public_name_is_documented():
    if not (PACKAGE / "spec").exists():
        pytest.skip("volano.spec does not exist yet")
    names = set(getattr(importlib.import_module("volano"), "__all__", ()))
    assert names, "volano.__all__ is empty, yet volano.spec exists"
    assert not undocumented(names), "public names that no document mentions"


def commands(command: Any, path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every visible command of a Typer application as (name, flags)."""
    if getattr(command, "hidden", False):
        return
    flags = {
        flag
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
        for flag in parameter.opts
        if flag.startswith("--") and flag not in {"--help", "--install-completion", "--show-completion"}
    }
    yield path, flags
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, name)


def test_every_command_and_flag_is_documented():
    if not (PACKAGE / "cli").exists():
        pytest.skip("volano.cli does not exist yet")
    import typer.main

    app = importlib.import_module("volano.cli.main").app
    found = dict(commands(typer.main.get_command(app)))
    assert {"plan", "apply"} <= set(found), (
        "the commands were not found: the test would pass for want of them"
    )
    wanted = {name for name in found if name} | {flag for flags in found.values() for flag in flags}
    assert not undocumented(wanted), "commands and flags that no document mentions"


def keys_of(module: Any) -> set[str]:
    """Field names of every public Struct or dataclass that a module defines."""
    keys: set[str] = set()
    for name, value in vars(module).items():
        if name.startswith("_") or not isinstance(value, type) or value.__module__ != module.__name__:
            continue
        if issubclass(value, msgspec.Struct):
            keys |= set(value.__struct_encode_fields__)
        elif dataclasses.is_dataclass(value):
            keys |= {field.name for field in dataclasses.fields(value)}
    return keys


def test_every_configuration_key_is_documented():
    reads_config = [p for p in PACKAGE.rglob("*.py") if "volano.toml" in p.read_text(encoding="utf-8")]
    if not [path for path in reads_config if path.name != "errors.py"]:
        pytest.skip("nothing reads volano.toml yet")
    assert (PACKAGE / "runtime" / "config.py").exists(), "volano.toml is declared in volano.runtime.config"
    keys = keys_of(importlib.import_module("volano.runtime.config"))
    assert keys, "volano.runtime.config declares no keys as public Structs or dataclasses"
    assert not undocumented(keys), "configuration keys that no document mentions"


def test_an_undocumented_word_is_caught():
    assert undocumented({"make", "--no-such-flag", "NoSuchName"}) == ["--no-such-flag", "NoSuchName"]


def test_commands_are_found_at_every_depth():
    import typer
    import typer.main

    app, group = typer.Typer(), typer.Typer()
    app.add_typer(group, name="demo")

    @group.command()
    def flights(report: str = "") -> None: ...

    @app.command()
    def plan() -> None: ...

    found = dict(commands(typer.main.get_command(app)))
    assert {"demo", "flights", "plan"} <= set(found)
    assert found["flights"] == {"--report"}


def test_every_reason_to_set_an_event_aside_is_documented():
    text = "".join(
        (PACKAGE / "collect" / name).read_text() for name in ("schemas.py", "door.py", "parents.py")
    )
    codes = set(re.findall(r'(?:\(\(?|return )"([a-z]+_[a-z_]+)", ', text))
    assert {"missing_field", "too_long", "unknown_decision", "pending_parent"} <= codes
    assert not undocumented(codes)
