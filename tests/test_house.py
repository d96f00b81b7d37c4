"""The floors of the house: a module imports only from lower floors, and the command line starts quickly."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "bonsaigan"
# First match wins; the number is the floor.
FLOORS = [
    ("errors", 0),
    ("config", 0),
    ("locks", 0),
    ("durable", 0),
    ("processes", 0),
    ("device", 1),
    ("runs", 1),
    ("hub", 1),
    ("plots", 1),
    ("diagrams", 1),
    ("data", 1),
    ("models", 2),
    ("evaluation", 2),
    ("training.losses", 2),
    ("training.augment", 2),
    ("training.optim", 2),
    ("explore.timelapse", 5),
    ("explore", 3),
    ("generator", 3),
    ("training", 4),
    ("appraise", 5),
    ("report", 5),
    ("conclude", 5),
    ("selfcheck", 5),
    ("export", 5),
    ("studio", 6),
    ("terminal", 6),
    ("cli_run", 6),
    ("cli_explore", 6),
    ("cli_train", 6),
    ("cli", 6),
]


def floor_of(module: str) -> int:
    for prefix, floor in FLOORS:
        if module == prefix or module.startswith(prefix + "."):
            return floor
    raise AssertionError(f"{module} has no floor: add it to the list")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bonsaigan"):
            base = node.module.removeprefix("bonsaigan").lstrip(".")
            found |= {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("bonsaigan.") for a in node.names if a.name.startswith("bonsaigan.")
            }
    return found


MODULES = sorted(p for p in SOURCE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_imports_only_from_its_floor_or_lower(path: Path) -> None:
    own = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for imported in imports_of(path):
        assert floor_of(imported) <= floor_of(own), f"{own} imports {imported}"


@pytest.mark.parametrize(
    "module", ["bonsaigan", "bonsaigan.cli", "bonsaigan.config", "bonsaigan.data.sources"]
)
def test_light_modules_do_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
