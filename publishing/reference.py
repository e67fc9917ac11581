"""Pages for whoever builds on the project: README's how-tos, and what each module offers, read from the code itself.

Modules are parsed, not imported: a page shows what stands in the file, and needs none of the libraries behind it.
"""

import ast
import re
from pathlib import Path
from textwrap import dedent

FIRST = "Two commands"  # README's sections from here on are how-tos; what comes before is the study's result


def guide(readme: Path) -> str:
    """README's how-tos as a page. Links into the project are shown as names: the site stands without it."""
    text = readme.read_text()
    sections = text[text.index(f"## {FIRST}") :]
    return "# How to\n\n" + re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", sections)


def reference(package: Path) -> dict[str, str]:
    """A page for each module and package below reidlib's folder: its name -> Markdown.

    A package's page holds its modules'. What begins with an underscore is left out.
    """
    pages = {}
    for path in sorted(package.iterdir()):
        if path.suffix == ".py" and not path.stem.startswith("_"):
            pages[path.stem] = f"# {package.name}.{path.stem}\n\n{_module(path)}"
        elif (path / "__init__.py").exists():
            inside = [file for file in sorted(path.glob("*.py")) if not file.stem.startswith("_")]
            text = ast.get_docstring(ast.parse((path / "__init__.py").read_text())) or ""
            parts = [f"## {path.name}.{file.stem}\n\n{_module(file)}" for file in inside]
            pages[path.name] = "\n\n".join([f"# {package.name}.{path.name}", _prose(text), *parts])
    return pages


def _module(path: Path) -> str:
    """What a module says of itself, then each of its public functions and classes as `help` would show it."""
    source = path.read_text()
    tree, lines = ast.parse(source), source.splitlines()
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    return "\n\n".join([_prose(ast.get_docstring(tree) or ""), *(_code("\n".join(_shown(node, lines))) for node in public)])


def _prose(text: str) -> str:
    """A docstring's paragraphs; what is indented in it, as it stands."""
    blocks = re.split(r"\n\s*\n", text)
    return "\n\n".join(_code(block, "text") if block.startswith("    ") else block for block in blocks)


def _code(text: str, language: str = "python") -> str:
    return f"````{language}\n{text}\n````"


def _shown(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> list[str]:
    """The head of a function or class, its docstring and, of a class, its fields with their comments and public methods."""
    head, inside = [f"@{ast.unparse(one)}" for one in node.decorator_list], []
    if isinstance(node, ast.FunctionDef):
        head += [
            f"def {node.name}({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
        ]
    else:
        head += [f"class {node.name}" + (f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else "")]
        for one in node.body:
            if isinstance(one, ast.AnnAssign):
                inside += dedent("\n".join(lines[one.lineno - 1 : one.end_lineno])).splitlines()
            elif isinstance(one, ast.FunctionDef) and one.name[0] != "_":
                inside += ["", *_shown(one, lines)]
    said = ast.get_docstring(node)
    if said:
        inside = [*f'"""{said}"""'.splitlines(), *[""] * bool(inside and inside[0]), *inside]
    return head + [f"    {line}" if line else "" for line in inside]
