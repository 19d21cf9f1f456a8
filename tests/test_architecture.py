"""Who may import whom: read from the source, so that a wrong import fails here and not later."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = {
    "retfiner": ROOT / "RetFiner" / "retfiner",
    "linprobe": ROOT / "linear_probing" / "linprobe",
}

FORBIDDEN = {
    "retfiner.common": ("retfiner.", "linprobe"),
    "retfiner.vision": ("retfiner.", "linprobe"),
    "retfiner.text": ("retfiner.", "linprobe"),
    "retfiner.config": ("retfiner.", "torch"),
    "retfiner.model": ("retfiner.", "linprobe"),
    "retfiner.losses": ("retfiner.", "linprobe"),
    "retfiner.data": ("retfiner.", "linprobe"),
    "retfiner.training": ("retfiner.", "linprobe"),
    "retfiner.export": ("retfiner.", "linprobe"),
    "retfiner.evaluation": ("retfiner.api", "retfiner.browse", "retfiner.refine", "linprobe"),
    "retfiner.explanation": ("retfiner.api", "retfiner.browse", "retfiner.refine", "linprobe"),
    "retfiner.browse": ("retfiner.", "linprobe"),
    "retfiner": ("linprobe",),
    "linprobe": ("retfiner.",),
    "linprobe.report": ("torch", "linprobe."),
    "linprobe.statistics": ("torch", "linprobe."),
    "linprobe.units": ("torch", "linprobe."),
}
_LOWER = ("retfiner.common", "retfiner.vision", "retfiner.text")
ALLOWED = {
    "retfiner.common": ("retfiner.common",),
    "retfiner.vision": ("retfiner.common", "retfiner.vision"),
    "retfiner.text": ("retfiner.common", "retfiner.text"),
    "retfiner.config": (
        "retfiner.common",
        "retfiner.data.table_settings",
        "retfiner.text.folder",
    ),
    "retfiner.model": _LOWER,
    "retfiner.losses": (*_LOWER, "retfiner.losses", "retfiner.model"),
    "retfiner.data": (*_LOWER, "retfiner.data", "retfiner.model"),
    "retfiner.training": (
        *_LOWER,
        "retfiner.config.REPOSITORY",
        "retfiner.data",
        "retfiner.losses",
        "retfiner.model",
        "retfiner.training",
    ),
    "retfiner.export": (
        *_LOWER,
        "retfiner.config",
        "retfiner.export",
        "retfiner.losses",
        "retfiner.model",
        "retfiner.training",
    ),
    "retfiner.browse": (
        "retfiner.api",
        "retfiner.browse",
        "retfiner.common",
        "retfiner.data.manifest",
        "retfiner.data.pair_table",
        "retfiner.data.pictures",
        "retfiner.evaluation.embedding",
        "retfiner.evaluation.pages",
        "retfiner.explanation.page",
        "retfiner.vision",
    ),
    "linprobe": ("retfiner.common", "retfiner.vision"),
    "linprobe.report": ("linprobe.report", "linprobe.statistics", "linprobe.units"),
    "linprobe.statistics": ("linprobe.statistics",),
    "linprobe.units": ("linprobe.units",),
}


def modules():
    for name, folder in LIBRARIES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((name, *(p for p in parts if p != "__init__"))), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, room):
    return name == room.rstrip(".") or name.startswith(room if room.endswith(".") else room + ".")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_wall_is_crossed(room):
    checked = 0
    for module, path in modules():
        if not within(module, room):
            continue
        checked += 1
        for name in imports(path):
            if any(within(name, allowed) for allowed in ALLOWED.get(room, ())):
                continue
            if name in ("retfiner", "linprobe"):
                continue  # `from retfiner import vision`: the name that follows is checked itself
            crossed = [wall for wall in FORBIDDEN[room] if within(name, wall)]
            assert not crossed, f"{module} imports {name}"
    assert checked


def test_the_root_holds_what_a_reader_of_the_paper_looks_for():
    root = {path.stem for path in LIBRARIES["retfiner"].glob("*.py")}
    assert root == {"__init__", "config", "refine", "model", "api"}


def test_what_is_common_is_used_by_both_libraries():
    """Straight, or by way of what is common itself."""
    users: dict[str, set[str]] = {}
    for module, path in modules():
        for name in imports(path):
            users.setdefault(name.rpartition(".")[0], set()).add(module)
            users.setdefault(name, set()).add(module)
    common = [m for m, path in modules() if within(m, "retfiner.common") and path.stem[0] != "_"]

    def libraries(module, seen=()):
        found = set()
        for user in users.get(module, ()):
            if within(user, "retfiner.common") and user not in seen:
                found |= libraries(user, (*seen, module))
            elif not within(user, "retfiner.common"):
                found.add(user.split(".")[0])
        return found

    alone = [m for m in common if libraries(m) != {"retfiner", "linprobe"}]
    assert not alone


def test_nobody_needs_the_page():
    for module, path in modules():
        if not within(module, "retfiner.browse"):
            assert not [name for name in imports(path) if within(name, "retfiner.browse")], module


def loaded_by(path, known):
    """Our modules that are loaded with a module: not those for types, nor within a function."""
    pending = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]


def test_no_module_imports_itself_by_way_of_others():
    known = dict(modules())
    edges = {
        name: {n for n in loaded_by(path, known) if n in known and not within(name, n)}
        for name, path in known.items()  # a module may know the room it lies in
    }
    done: set[str] = set()

    def visit(module, trail):
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for imported in sorted(edges[module]):
                visit(imported, (*trail, module))
            done.add(module)

    for module in known:
        visit(module, ())
    assert done == set(known)
    assert "retfiner.common.errors" in edges["retfiner.model"], "edges are found at all"


@pytest.mark.parametrize(
    ("folder", "walls", "doors"),
    [
        ("RetFiner", ("linprobe",), ()),
        ("linear_probing", ("retfiner.",), ("retfiner.common", "retfiner.vision")),
    ],
)
def test_scripts_stay_on_their_side(folder, walls, doors):
    scripts = sorted((ROOT / folder).glob("*.py"))
    assert scripts
    for path in scripts:
        for name in imports(path):
            if not any(within(name, door) for door in doors):
                assert not [w for w in walls if within(name, w)], f"{path.name} imports {name}"
