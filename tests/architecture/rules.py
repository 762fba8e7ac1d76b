"""The rules of the house that a syntax tree can show. Each takes a module and returns its offences, in words.

Every rule has an offender in `test_rules.py` that it must catch.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from tests.architecture.source import PACKAGE, Module

# --- imports --------------------------------------------------------------------------------------

ADAPTERS = frozenset({"stores", "engines", "trainers"})
WAYS_IN = frozenset({"cli", "server", "console"})
NOT_INSIDE = frozenset({"testing", "client", *ADAPTERS})
LEAVES = {
    "client": frozenset({"values", "records", "errors", "protocols"}),
    "stores": frozenset({"protocols", "values", "records", "errors"}),
    "trainers": frozenset({"protocols", "values", "records", "errors"}),
    "engines": frozenset({"protocols", "kernels", "values", "records", "errors"}),
    "": frozenset({"spec", "values", "errors", "project"}),
}


def direct_imports(module: Module) -> list[str]:
    """Who may import whom, directly. The order of the layers is import-linter's part (`pyproject.toml`)."""
    offences = []
    for line, _, target in module.imports:
        if target.split(".")[0] != "volano":
            continue
        area = _area_of(target)
        if area == module.area or module.area == "testing":
            continue
        if area in NOT_INSIDE:
            mend = "reach it by entry point" if area in ADAPTERS else "nobody inside may import it"
            offences.append(f"{module.shown}:{line}: imports volano.{area}; {mend}")
        elif module.area in LEAVES and area not in LEAVES[module.area]:
            may = ", ".join(sorted(LEAVES[module.area]))
            offences.append(f"{module.shown}:{line}: imports {target}; {module.name} may import {may} only")
        elif not area and module.area not in WAYS_IN | {"runtime", "project"}:
            offences.append(
                f"{module.shown}:{line}: imports the facade; import {target} from where it is defined"
            )
    return offences


def _area_of(target: str) -> str:
    """The first name below `volano` that is a module; empty when the target is `volano` or a name in it."""
    parts = target.split(".")
    known = {path.stem for path in PACKAGE.iterdir()} | set(LEAVES) | NOT_INSIDE
    return parts[1] if len(parts) > 1 and parts[1] in known else ""


PICKLES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"})


def no_pickle(module: Module) -> list[str]:
    """Artifacts are native or ONNX; what must be read for ever is never code."""
    return [
        f"{module.shown}:{line}: imports {target}; store a native format instead"
        for line, _, target in module.imports
        if target.split(".")[0] in PICKLES
    ]


# --- clock, chance, environment -------------------------------------------------------------------

PURE = frozenset({"values", "spec", "records", "kernels", "plan", "compile"})
STAGES = frozenset({"decide", "collect", "organize", "learn"})
MAY_MEASURE = frozenset({"runtime", "cli", "server"})
CLOCKS = re.compile(r"time\.\w+|datetime\.datetime\.(now|utcnow|today)|datetime\.date\.today")
CHANCE = re.compile(
    r"random\.(?!Random$)\w+|secrets\.\w+|os\.urandom|uuid\.uuid[147]"
    r"|numpy\.random\.(?!default_rng|Generator|SeedSequence|BitGenerator|PCG64|Philox)\w+"
)
ENVIRONMENT = re.compile(r"os\.(environ|environb|getenv|getenvb)")


def no_hidden_input(module: Module) -> list[str]:
    """Time, chance and configuration arrive as arguments; only the runtime reads them."""
    if module.area not in PURE | STAGES:
        return []
    offences = []
    for line, name in module.references:
        if CLOCKS.fullmatch(name):
            offences.append(f"{module.shown}:{line}: {name} reads the clock; take the instant as an argument")
        elif CHANCE.fullmatch(name):
            offences.append(
                f"{module.shown}:{line}: {name} is unseeded; take a seeded generator as an argument"
            )
        elif ENVIRONMENT.fullmatch(name):
            offences.append(
                f"{module.shown}:{line}: {name} reads the environment; volano.runtime reads it once"
            )
    return offences


def no_unseeded_generator(module: Module) -> list[str]:
    """`default_rng()` and `Random()` without a seed differ on every run."""
    bound = {name: target for _, name, target in module.imports}
    offences = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and not node.args and not node.keywords:
            head, _, rest = ast.unparse(node.func).partition(".")
            name = ".".join(filter(None, [bound.get(head, head), rest]))
            if name in {"numpy.random.default_rng", "random.Random"}:
                offences.append(f"{module.shown}:{node.lineno}: {name}() without a seed; pass one and log it")
    return offences


def stopwatch_only_outside(module: Module) -> list[str]:
    """Durations are measured at the edge, never where results are computed."""
    if module.area in MAY_MEASURE:
        return []
    return [
        f"{module.shown}:{line}: {name}; measure in {', '.join(sorted(MAY_MEASURE))} and pass the duration"
        for line, name in module.references
        if name.startswith("time.perf_counter")
    ]


# --- shape ----------------------------------------------------------------------------------------

CATCH_ALL_ALLOWED = frozenset({"runtime", "cli", "server"})


def no_catch_all(module: Module) -> list[str]:
    """A catch-all swallows our own mistakes. Outside the edge its line must carry the reason in a comment."""
    if module.area in CATCH_ALL_ALLOWED:
        return []
    offences = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = {"BaseException"} if node.type is None else _names(node.type)
        reason = re.sub(r"#|noqa(:\s*[A-Z0-9, ]+)?", "", module.comments.get(node.lineno, ""))
        if caught & {"Exception", "BaseException"} and len(reason.split()) < 3:
            offences.append(
                f"{module.shown}:{node.lineno}: catches everything; name the exception, "
                "or give the reason on the line: `# noqa: BLE001 - why`"
            )
    return offences


def _names(node: ast.expr) -> set[str]:
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}


VAGUE = frozenset({"util", "utils", "helper", "helpers", "common", "core", "misc", "tools"})


def no_vague_name(module: Module) -> list[str]:
    """A helper lives beside its noun."""
    vague = [part for part in module.name.split(".") if part.strip("_") in VAGUE]
    return [f"{module.shown}: a module named {part!r}; name the noun" for part in vague]


MAX_LINES = 700


def not_too_long(module: Module) -> list[str]:
    """A module that is read in one sitting."""
    n_lines = module.text.count("\n")
    return [f"{module.shown}: {n_lines} lines, at most {MAX_LINES}; split it"] if n_lines > MAX_LINES else []


BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match)


def thin_facade(module: Module) -> list[str]:
    """`project.py` passes on and decides nothing."""
    if module.name != "volano.project":
        return []
    return [
        f"{module.shown}:{node.lineno}: {type(node).__name__.lower()} in the facade; move it to volano.runtime"
        for node in ast.walk(module.tree)
        if isinstance(node, BRANCHES) and not _is_typing_guard(node)
    ]


def _is_typing_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


PER_MODULE = (
    direct_imports,
    no_pickle,
    no_hidden_input,
    no_unseeded_generator,
    stopwatch_only_outside,
    no_catch_all,
    no_vague_name,
    not_too_long,
    thin_facade,
)

# --- the tree of errors ---------------------------------------------------------------------------


def one_error_tree(modules: Iterable[Module]) -> list[str]:
    """Every exception descends from `VolanoError` and has a `code` of its own that no other has."""
    classes = [
        (node, module)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    ]
    tree = {"VolanoError"}
    while True:
        found = {node.name for node, _ in classes if tree & {_last_name(base) for base in node.bases}}
        if found <= tree:
            break
        tree |= found

    offences = []
    owner_of_code: dict[str, str] = {}
    for node, module in classes:
        at = f"{module.shown}:{node.lineno}: {node.name}"
        if node.name not in tree:
            if any(_is_exception(_last_name(base)) for base in node.bases):
                offences.append(f"{at} is an exception outside the tree; derive it from VolanoError")
            continue
        code = _code_of(node)
        if code is None:
            offences.append(f'{at} has no code; add `code = "..."`, which clients match on')
        elif code in owner_of_code:
            offences.append(f"{at} repeats the code {code!r} of {owner_of_code[code]}; choose another")
        else:
            owner_of_code[code] = node.name
    return offences


def _last_name(base: ast.expr) -> str:
    return ast.unparse(base).split("[")[0].split(".")[-1]


def _is_exception(name: str) -> bool:
    import builtins

    known = getattr(builtins, name, None)
    if isinstance(known, type):
        return issubclass(known, BaseException)
    return name.endswith(("Error", "Exception"))


def _code_of(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                return code
            case ast.AnnAssign(target=ast.Name(id="code"), value=ast.Constant(value=str(code))):
                return code
    return None


# --- tracked files --------------------------------------------------------------------------------

# A path below the usual roots of one machine. `s3://bucket/home/x` and `a/home/x` are no such path.
MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(?:home|root|Users|work|mnt|opt|private)/\w+")


def no_machine_path(shown: str, text: str) -> list[str]:
    """A tracked file works on every machine."""
    return [
        f"{shown}:{n}: {found[0]} exists on one machine only"
        for n, line in enumerate(text.splitlines(), 1)
        if (found := MACHINE_PATH.search(line))
    ]


def no_address_in_lock(shown: str, text: str) -> list[str]:
    """A lock holds names, versions, markers and hashes: where to download is the installer's business."""
    pin = re.compile(r"[a-z0-9-]+==\S+( ; [^@/]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    return [
        f"{shown}:{n}: neither a pin nor a hash: {line}"
        for n, line in enumerate(text.splitlines(), 1)
        if not pin.fullmatch(line)
    ]


def read_text(path: Path) -> str | None:
    """The file's text; None when it is binary."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
