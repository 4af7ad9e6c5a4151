"""Imports go downward, none hides in a function, none runs in a circle; what is light to import stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import penstock
import penstock.aggregates
from penstock.registry import names

SOURCE = Path(penstock.__file__).parent

# Each may import those before it, and itself.
LAYERS = [
    "errors", "types", "clock", "registry", "printing", "simulator", "aggregates", "laws", "events", "features",
    "stores", "engines", "retrieve", "learn", "evaluate", "releases", "serve", "web", "shop", "audit", "console",
    "doctor", "forget", "app", "", "apps", "scaffold", "workers", "commands", "care", "demo", "cli",
]  # fmt: skip
ORDER = [f"penstock.{layer}".rstrip(".") for layer in LAYERS]

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
HEAVY = {
    "numpy", "polars", "msgspec", "lightgbm", "scipy", "lmdb", "uvicorn", "uvloop", "httptools", "starlette",
    "prometheus_client", "sqlite3", "asyncio",
}  # fmt: skip
DRIVERS = ("redis", "confluent_kafka", "pyspark", "ray", "torch", "faiss", "scann", "usearch", "psycopg")

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
Trees = Mapping[str, ast.Module]


def trees(sources: Mapping[str, str]) -> Trees:
    return {name: ast.parse(source) for name, source in sources.items()}


@pytest.fixture(scope="module")
def project() -> Trees:
    out = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        out[name.removesuffix(".__init__")] = path.read_text()
    return trees(out)


def imported(node: ast.AST, modules: Trees) -> list[str]:
    """The project's modules that an import statement loads."""
    if isinstance(node, ast.Import):
        found = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        found = [name if name in modules else str(node.module) for name in inner]
    else:
        found = []
    return [name for name in found if name.split(".")[0] == "penstock"]


def named(node: ast.AST, modules: Trees) -> list[str]:
    """The project's modules that a text names, to be loaded later."""
    found = isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in modules
    return [node.value] if found and "." in node.value else []  # type: ignore[attr-defined]


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, FUNCTIONS):
            yield child
            yield from outside_functions(child)


def edges(modules: Trees) -> Iterator[tuple[str, str]]:
    """What imports what; loading later, declared at the top of a module, counts."""
    for name, tree in modules.items():
        for node in outside_functions(tree):
            found = imported(node, modules) + named(node, modules)
            yield from ((name, other) for other in found if other != name)


def layer(module: str) -> str:
    return ".".join(module.split(".")[:2])


def upward(modules: Trees) -> list[str]:
    """Imports of a layer that does not stand below."""
    return [
        f"{name} imports {other}"
        for name, other in edges(modules)
        if layer(name) != layer(other) and ORDER.index(layer(other)) > ORDER.index(layer(name))
    ]


def hidden(modules: Trees) -> list[str]:
    """Functions that import from the project, by statement or by name."""
    return [
        f"{name}:{function.lineno}"
        for name, tree in modules.items()
        for function in ast.walk(tree)
        if isinstance(function, FUNCTIONS) and any(_imports(node, modules) for node in ast.walk(function))
    ]


def _imports(node: ast.AST, modules: Trees) -> bool:
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return any(named(argument, modules) for argument in node.args)
    return bool(imported(node, modules))


def cycle(modules: Trees) -> list[str]:
    """The modules of one circle of imports, empty where there is none."""
    graph: dict[str, set[str]] = {}
    for name, other in edges(modules):
        graph.setdefault(name, set()).add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def unsafe(modules: Trees) -> list[str]:
    """Uses of anything that runs what it reads."""
    return [f"{name}:{node.lineno}" for name, tree in modules.items() for node in ast.walk(tree) if _unsafe(node)]  # type: ignore[attr-defined]


def _unsafe(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in UNSAFE_MODULES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return str(node.module).split(".")[0] in UNSAFE_MODULES
    if isinstance(node, ast.keyword):
        return node.arg == "allow_pickle" and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    return isinstance(node, ast.Name) and node.id in ("eval", "exec", "compile")


def test_every_module_has_a_layer(project: Trees) -> None:
    assert {layer(name) for name in project} == set(ORDER)


def test_imports_go_downward(project: Trees) -> None:
    assert upward(project) == []


def test_no_import_of_our_own_hides_in_a_function(project: Trees) -> None:
    assert hidden(project) == []


def test_imports_make_no_circle(project: Trees) -> None:
    assert cycle(project) == []


def test_nothing_read_is_ever_run(project: Trees) -> None:
    assert unsafe(project) == []


def test_apps_import_only_penstock(project: Trees) -> None:
    apps = {name: tree for name, tree in project.items() if layer(name) == "penstock.apps"}
    assert apps
    assert {other for name, other in edges(project) if name in apps} == {"penstock"}
    for tree in apps.values():
        used = {
            node.attr for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ps"
        }  # fmt: skip
        assert used <= set(penstock.__all__)


BAD = {
    "upward": (upward, {"penstock.types": "import penstock.events.log", "penstock.events.log": ""}),
    "upward, for later": (upward, {"penstock.events.log": "X = later('penstock.serve')", "penstock.serve": ""}),
    "upward, for types": (
        upward,
        {"penstock.clock": "if TYPE_CHECKING:\n    from penstock import app", "penstock.app": ""},
    ),
    "hidden": (hidden, {"penstock.app": "def f():\n    from penstock.clock import DAY", "penstock.clock": ""}),
    "hidden, by name": (hidden, {"penstock.app": "f = lambda: import_module('penstock.cli')", "penstock.cli": ""}),
    "circle": (
        cycle,
        {"penstock.events": "from penstock.events.log import Log", "penstock.events.log": "import penstock.events"},
    ),
    "unpickles": (unsafe, {"penstock.app": "import numpy as np\nnp.load(file, allow_pickle=True)"}),
    "evaluates": (unsafe, {"penstock.app": "eval(text)"}),
}


@pytest.mark.parametrize("case", BAD)
def test_each_breach_is_found(case: str) -> None:
    check, sources = BAD[case]
    assert check(trees(sources))


def loaded_by(code: str, *path: Path) -> set[str]:
    """The modules that `code` loads in an interpreter of its own."""
    script = "\n".join(
        [
            "import sys",
            f"sys.path[:0] = {[str(p) for p in path]}",
            "before = set(sys.modules)",
            code,
            "print('\\n', *sorted(set(sys.modules) - before))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def roots(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


def test_the_package_by_itself_loads_next_to_nothing() -> None:
    loaded = loaded_by("import penstock")
    assert roots(loaded) & (HEAVY | {"typer", "rich"}) == set()
    assert len(loaded) <= 45, sorted(loaded)


def test_the_command_line_loads_nothing_heavy() -> None:
    loaded = loaded_by("import penstock.cli")
    assert roots(loaded) & (HEAVY | {"rich"}) == set()
    assert len(loaded) <= 150, sorted(loaded)


def test_help_loads_nothing_heavy() -> None:
    code = "import penstock.cli\nsys.argv = ['penstock', '--help']\ntry: penstock.cli.main()\nexcept SystemExit: pass"
    loaded = loaded_by(code)
    assert roots(loaded) & HEAVY == set()
    assert len(loaded) <= 330, len(loaded)


def test_commands_that_score_nothing_do_not_wait_for_lightgbm() -> None:
    """It takes twice as long to import as all else together."""
    assert roots(loaded_by("import penstock.commands")) & {"lightgbm", "scipy"} == set()


def test_public_names_load_no_driver(tmp_path: Path) -> None:
    for name in DRIVERS:
        (tmp_path / f"{name}.py").touch()
    loaded = loaded_by("import penstock\nfor name in penstock.__all__: getattr(penstock, name)", tmp_path)
    assert "polars" in loaded
    assert roots(loaded) & set(DRIVERS) == set()


def test_public_names_are_few_sorted_and_known_to_type_checkers(project: Trees) -> None:
    typed = [
        alias.name for node in ast.walk(project["penstock"])
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("penstock.")
        for alias in node.names
    ]  # fmt: skip
    assert sorted(penstock.__all__) == penstock.__all__ == sorted(typed)
    # Aggregates and sources are vocabularies, of which one knows what one uses; all else is to be known.
    assert len(set(penstock.__all__) - set(penstock.aggregates.__all__) - set(names("source"))) <= 24
    assert set(penstock.__all__) <= set(dir(penstock))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'counts'; it has App, .*count"):
        _ = penstock.counts
