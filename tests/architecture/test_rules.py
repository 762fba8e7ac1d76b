"""The source keeps the rules of the house, and every rule catches its offender."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests.architecture import rules
from tests.architecture.source import ROOT, Module, modules

OFFENDERS = [
    (rules.direct_imports, "volano.runtime.apply", "from volano.stores.lmdb import X"),
    (rules.direct_imports, "volano.runtime.apply", "from volano import testing"),
    (rules.direct_imports, "volano.runtime.apply", "def f():\n    import volano.trainers.sklearn"),
    (rules.direct_imports, "volano.stores.lmdb", "from volano.spec.source import Source"),
    (rules.direct_imports, "volano.stores.lmdb", "from ..spec.source import Source"),
    (rules.direct_imports, "volano.stores.lmdb", "from volano.trainers import sklearn"),
    (rules.direct_imports, "volano.client.http", "from volano.decide import api"),
    (rules.direct_imports, "volano.decide.api", "from volano import Source"),
    (rules.direct_imports, "volano.decide.api", "from volano.client import http"),
    (rules.no_pickle, "volano.trainers.sklearn", "import joblib"),
    (rules.no_pickle, "volano.trainers.sklearn", "from pickle import loads"),
    (rules.no_hidden_input, "volano.decide.api", "import time\ntime.time()"),
    (rules.no_hidden_input, "volano.values.instant", "import datetime as dt\ndt.datetime.now(dt.UTC)"),
    (rules.no_hidden_input, "volano.values.instant", "from datetime import datetime\ndatetime.utcnow()"),
    (rules.no_hidden_input, "volano.values.instant", "from datetime import date\nf = date.today"),
    (rules.no_hidden_input, "volano.learn.split", "from time import monotonic as m\nm()"),
    (rules.no_hidden_input, "volano.learn.split", "import random\nrandom.shuffle(x)"),
    (rules.no_hidden_input, "volano.learn.split", "import numpy as np\nnp.random.rand(3)"),
    (rules.no_hidden_input, "volano.learn.split", "import numpy.random\nnumpy.random.seed(3)"),
    (rules.no_hidden_input, "volano.plan.step", "import os\nos.environ['HOME']"),
    (rules.no_hidden_input, "volano.plan.step", "from os import getenv\ngetenv('HOME')"),
    (rules.no_unseeded_generator, "volano.learn.split", "import numpy as np\nnp.random.default_rng()"),
    (rules.no_unseeded_generator, "volano.learn.split", "from random import Random\nRandom()"),
    (rules.stopwatch_only_outside, "volano.stores.lmdb", "import time\ntime.perf_counter_ns()"),
    (rules.no_catch_all, "volano.stores.lmdb", "try:\n    f()\nexcept:\n    pass"),
    (rules.no_catch_all, "volano.stores.lmdb", "try:\n    f()\nexcept (KeyError, Exception):\n    pass"),
    (rules.no_catch_all, "volano.stores.lmdb", "try:\n    f()\nexcept Exception:  # noqa: BLE001\n    pass"),
    (rules.no_vague_name, "volano.stores.utils", ""),
    (rules.no_vague_name, "volano.core.step", ""),
    (rules.not_too_long, "volano.plan.step", "\n" * (rules.MAX_LINES + 1)),
    (rules.thin_facade, "volano.project", "def f(x):\n    return 1 if x else 2"),
    (rules.thin_facade, "volano.project", "for x in y:\n    f(x)"),
]

INNOCENTS = [
    (rules.direct_imports, "volano.stores.lmdb", "from volano.protocols.online import Reader\nimport lmdb"),
    (
        rules.direct_imports,
        "volano.stores.lmdb",
        "from volano.stores import sqlite\nfrom volano import errors",
    ),
    (rules.direct_imports, "volano.testing.world", "from volano.stores import sqlite"),
    (rules.direct_imports, "volano.cli.main", "from volano import __version__"),
    (rules.no_hidden_input, "volano.runtime.clock", "import time\ntime.time_ns()"),
    (rules.no_hidden_input, "volano.learn.split", "import random\nrandom.Random(seed).shuffle(x)"),
    (rules.no_hidden_input, "volano.learn.split", "import numpy as np\nnp.random.default_rng(seed)"),
    (rules.no_hidden_input, "volano.values.instant", "from datetime import datetime\ndatetime(2013, 1, 1)"),
    (rules.no_unseeded_generator, "volano.learn.split", "import numpy as np\nnp.random.default_rng(7)"),
    (rules.no_catch_all, "volano.stores.lmdb", "try:\n    f()\nexcept KeyError:\n    pass"),
    (rules.no_catch_all, "volano.cli.main", "try:\n    f()\nexcept Exception:\n    pass"),
    (
        rules.no_catch_all,
        "volano.compile.call",
        "try:\n    f()\nexcept Exception as e:  # noqa: BLE001 - an author's function may raise anything\n    pass",
    ),
    (rules.thin_facade, "volano.project", "if TYPE_CHECKING:\n    import x"),
]


@pytest.mark.parametrize("rule", rules.PER_MODULE, ids=lambda rule: rule.__name__)
def test_the_source_keeps_the_rule(rule):
    found = list(modules())
    assert len(found) >= 2, "the source was not found: the rules would pass for want of a subject"
    offences = [offence for module in found for offence in rule(module)]
    assert not offences, "\n".join([f"{rule.__name__}: {rule.__doc__}", *offences])


def test_every_exception_is_in_the_tree():
    offences = rules.one_error_tree(modules())
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize(("rule", "name", "text"), OFFENDERS)
def test_a_rule_catches_its_offender(rule, name, text):
    assert rule(Module(name, text))


@pytest.mark.parametrize(("rule", "name", "text"), INNOCENTS)
def test_a_rule_leaves_the_innocent_alone(rule, name, text):
    ast.parse(text)
    assert rule(Module(name, text)) == []


def test_every_rule_has_an_offender():
    assert set(rules.PER_MODULE) == {rule for rule, _, _ in OFFENDERS}


@pytest.mark.parametrize(
    "text",
    [
        "class A(ValueError): code = 'a'",
        "class A(VolanoError): pass",
        "class A(errors.VolanoError): code = 'a'\nclass B(A): code = 'a'",
        "class A(vendor.TimeoutError): pass",
    ],
)
def test_the_error_tree_catches_its_offender(text):
    assert rules.one_error_tree([Module("volano.x", text)])


# --- tracked files --------------------------------------------------------------------------------


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing is tracked")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_tracked_file_names_a_machine():
    texts = {path: text for path in tracked() if (text := rules.read_text(path)) is not None}
    assert len(texts) > 10
    shown = {str(path.relative_to(ROOT)): text for path, text in texts.items()}
    offences = [offence for name, text in shown.items() for offence in rules.no_machine_path(name, text)]
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize("folder", ["home", "work", "opt", "Users"])
def test_a_machine_path_is_caught(folder):
    assert rules.no_machine_path("x", f"see /{folder}/me/x")
    assert not rules.no_machine_path("x", f"see https://example.org/{folder}/me and s3://b/{folder}/x")


@pytest.mark.parametrize("name", ["base", "build", "demo", "dev"])
def test_a_lock_holds_pins_and_hashes_only(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") > 10
    offences = rules.no_address_in_lock(f"requirements/{name}.txt", text)
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize(
    "line",
    ["--index-url https://example.org/simple", "x @ file:///x.whl", "x==1 \\ # from ../x", "--find-links ."],
)
def test_an_address_in_a_lock_is_caught(line):
    assert rules.no_address_in_lock("x", line)


def test_the_small_locks_are_cut_from_the_large_one():
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        return {line.split()[0] for line in text.splitlines() if "==" in line and "--hash" not in line}

    for name in ("base", "build", "demo"):
        assert pins(name) <= pins("dev"), f"requirements/{name}.txt: run `make lock`"
