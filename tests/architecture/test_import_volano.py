"""`import volano` is cheap and does nothing but define names."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.architecture.source import PACKAGE

# Runs in a fresh interpreter. Audit events report files, processes and sockets; the environment and
# threads raise none, so they are watched by hand.
PROBE = """
import json, os, sys, threading
effects, package = [], sys.argv[1]

def watch(event, args):
    if event == "open":
        path, mode, flags = str(args[0]), args[1], args[2]
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and "__pycache__" not in path:
            effects.append(f"writes {path}")
        elif path.startswith(package) and not path.endswith((".py", ".pyc")):
            effects.append(f"reads {path}")
    elif event in {"socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.mkdir", "os.putenv",
                   "os.system", "signal.signal"}:
        effects.append(event)

class Watched(type(os.environ)):
    def __getitem__(self, key):
        frame = sys._getframe(1)
        while any(part in frame.f_code.co_filename for part in ("os.py", "_collections_abc", "frozen")):
            frame = frame.f_back
        if frame.f_code.co_filename.startswith(package):
            effects.append(f"reads the environment: {key}")
        return super().__getitem__(key)

os.environ.__class__ = Watched
before, environ, folder = set(sys.modules), dict(os.environ), os.getcwd()
sys.addaudithook(watch)
start = threading.Thread.start
threading.Thread.start = lambda thread: (effects.append("starts a thread"), start(thread))
import volano
changed = dict(os.environ) != environ or os.getcwd() != folder
print(json.dumps({"modules": sorted(set(sys.modules) - before), "effects": effects, "changed": changed}))
"""


MSGSPEC = {"msgspec", "typing_extensions"}  # msgspec loads the latter by itself where it is installed


def probe(source) -> dict:
    environ = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", PROBE, str(source / "volano")], env=environ, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def foreign(modules: list[str]) -> set[str]:
    tops = {name.split(".")[0] for name in modules}
    return {name for name in tops - {"volano", *MSGSPEC} if name not in sys.stdlib_module_names}


def test_only_msgspec_is_loaded():
    found = probe(PACKAGE.parent)
    assert "volano" in found["modules"]
    assert not foreign(found["modules"]), "import these where they are used"


def test_importing_does_nothing():
    found = probe(PACKAGE.parent)
    assert not found["effects"] and not found["changed"]


def test_an_eager_package_is_caught(tmp_path):
    (tmp_path / "volano").mkdir()
    (tmp_path / "volano" / "__init__.py").write_text(
        "import os, threading, pytest\n"
        "os.environ.get('HOME')\n"
        f"open({str(tmp_path / 'x')!r}, 'w').close()\n"
        "threading.Thread(target=print, args=('',), kwargs={'end': ''}).start()\n"
        "os.chdir('..')\n"
    )
    found = probe(tmp_path)
    assert "pytest" in foreign(found["modules"])
    assert found["changed"]
    for word in ("environment", "writes", "thread"):
        assert any(word in effect for effect in found["effects"]), (word, found["effects"])
