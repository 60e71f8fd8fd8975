"""The rule between the layers, read from the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import mpipc

ROOT = Path(mpipc.__file__).parent
PRIVATE = ("_context", "_registry", "_replacement", "_stock")


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, as ``layer.module`` or ``module``."""
    found = set()
    package = ["mpipc", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {".".join([*base, name]) for name in names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("mpipc.") for name in found if name.startswith("mpipc")}


def files(layer: str) -> list[Path]:
    paths = sorted((ROOT / layer).glob("*.py"))
    assert paths
    return paths


def test_objects_know_no_mechanism():
    for path in files("objects"):
        others = {name for name in imports(path) if not name.startswith(("objects.", "adapters."))}
        assert others <= {"contracts", "errors", *PRIVATE}, path


def test_adapters_know_no_mechanism_and_no_object():
    for path in files("adapters"):
        layers = {name.partition(".")[0] for name in imports(path)}
        assert not layers & {"mechanisms", "objects", "_context", "_registry"}, path


def test_nothing_but_the_context_chooses_a_mechanism():
    for path in [*files("objects"), *files("testing"), *ROOT.glob("*.py")]:
        assert not any(name.startswith("mechanisms") for name in imports(path)), path
