"""The fail points, as the code has them, and the steps that change what is on disk."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
CHANGES = frozenset(
    {
        *("unlink", "rename", "replace", "rmdir", "rmtree", "truncate", "ftruncate", "touch", "mkdir", "copyfile"),
        *("write_whole", "write_all", "write_bytes", "write_text", "posix_fallocate"),
    }
)
"""Names of what changes a disk."""


def sources() -> list[Path]:
    """The modules of the product."""
    return sorted(path for folder in ("kernel", "plugins") for path in (ROOT / folder).rglob("*.py"))


def fail_points() -> dict[str, str]:
    """The name of each point, in the order of the code, and the module it is in."""
    found: dict[str, str] = {}
    for path in sources():
        for call in _calls(ast.parse(path.read_text())):
            if _name(call) == "fail_point":
                (name,) = call.args
                assert isinstance(name, ast.Constant), f"{path}:{call.lineno}: a point's name is a literal"
                assert name.value not in found, f"{path}:{call.lineno}: another point has the name {name.value}"
                found[str(name.value)] = path.relative_to(ROOT).as_posix()
    return found


def silent_changes() -> set[tuple[str, str]]:
    """The functions that change the disk and have no fail point, as (module, name)."""
    silent = set()
    for path in sources():
        for function in _functions(ast.parse(path.read_text())):
            names = [_name(call) for call in _calls(function) if _changes(call) or _name(call) == "fail_point"]
            if names and "fail_point" not in names:
                silent.add((path.relative_to(ROOT).as_posix(), function.name))
    return silent


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    yield from sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def _name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _changes(call: ast.Call) -> bool:
    """Whether a call changes the disk: `text.replace(a, b)` and `structs.replace(a, b=c)` do not."""
    if _name(call) not in CHANGES:
        return False
    return _name(call) != "replace" or (len(call.args) == 1 and not call.keywords)
