"""Data flows one way: what imports what, held against README's list of modules."""

import ast
import re

from reidlib.sources import PROJECT


def lines() -> list[list[str]]:
    """The modules of reidlib, line by line, as README's "Where things are" has them."""
    listed = re.search(r"^    reidlib/ +(.+?)^    \w+/ ", (PROJECT / "README.md").read_text(), re.M | re.S)[1]
    return [re.findall(r"[a-z]+", line.partition(":")[0]) for line in listed.strip().splitlines()]


def imported(module: str) -> set[str]:
    """The other modules of reidlib that one imports when it runs; a package is one module."""
    path = PROJECT / "reidlib" / module
    found = set()
    for file in path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        tree = ast.parse(file.read_text())
        typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        unseen = {id(inner) for node in typing for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in unseen and (node.module or "").startswith("reidlib"):
                inside = node.module.split(".")[1:]
                found |= {inside[0]} if inside else {alias.name for alias in node.names}
    return found - {module}


def test_each_module_is_listed_once():
    there = {
        file.stem for file in (PROJECT / "reidlib").iterdir() if file.suffix == ".py" or (file / "__init__.py").exists()
    }
    listed = [module for line in lines() for module in line]
    assert sorted(listed) == sorted(there - {"__init__", "__main__"})


def test_a_module_imports_none_that_is_listed_below_it():
    level = {module: number for number, line in enumerate(lines()) for module in line}
    below = {(module, other) for module in level for other in imported(module) if level[other] > level[module]}
    assert not below
    assert "training" in imported("making") and "study" in imported("gathering"), "and imports are seen"
