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
    "retfiner.losses": (
        "retfiner.data",
        "retfiner.training.module",
        "retfiner.refine",
        "retfiner.config",
        "retfiner.vision",
        "linprobe",
    ),
    "retfiner.data": (
        "retfiner.explanation",
        "retfiner.training.module",
        "retfiner.refine",
        "retfiner.losses",
        "linprobe",
    ),
    "retfiner.model": ("retfiner.data", "retfiner.training.module", "retfiner.losses", "linprobe"),
    "retfiner.explanation": (
        "retfiner.api",
        "retfiner.training.module",
        "retfiner.refine",
        "linprobe",
    ),
    "retfiner.browse": ("retfiner.", "linprobe"),
    "retfiner.evaluation": ("retfiner.training.module", "retfiner.refine", "linprobe"),
    "retfiner": ("linprobe",),
    "linprobe": ("retfiner.",),
    "linprobe.report": ("torch", "linprobe."),
}
ALLOWED = {
    "retfiner.common": ("retfiner.common",),
    "retfiner.vision": ("retfiner.common", "retfiner.vision"),
    "retfiner.text": ("retfiner.common", "retfiner.text"),
    "retfiner.browse": (
        "retfiner.api",
        "retfiner.browse",
        "retfiner.common",
        "retfiner.data.manifest",
        "retfiner.evaluation.embedding",
        "retfiner.explanation.page",
        "retfiner.vision",
    ),
    "linprobe": ("retfiner.common", "retfiner.vision"),
    "linprobe.report": ("linprobe.report",),
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
            yield node.module
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
