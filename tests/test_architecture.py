"""Who may import what: the layers are import-linter's business, the private modules of packages are told here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "sklearn_mm"
MODULES = sorted(ROOT.rglob("*.py"))


def _imports(path):
    """Yield the modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklearn_mm"):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("sklearn_mm"))


def _is_module(name):
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_package_imports_a_private_module_of_another(path):
    own = "sklearn_mm." + path.relative_to(ROOT).parts[0]
    private = {
        name
        for name in _imports(path)
        if _is_module(name)
        and any(part.startswith("_") for part in name.split(".")[2:])  # modules at the top are everybody's
        and not name.startswith(f"{own}.")
    }
    assert not private


def test_the_check_sees_what_is_imported():
    assert "sklearn_mm.losses._base" in set(_imports(ROOT / "losses" / "__init__.py"))
    assert _is_module("sklearn_mm.losses._base")
    assert not _is_module("sklearn_mm.losses.PairLoss")
