"""Which code a number depends on: what a function reaches, definition by definition, and a hash of what each does.

    reached(train_expert)     {"reidlib.training.train": "5f0c...", "reidlib.data.augment.augment": "91ab...", ...}

From a function's source the names in it are followed to where they are defined, in its own module or another of this
project, and from there on. What does not change what code computes is left out of a hash: comments, docstrings, layout,
annotations, the words of an error. So a new function, an edited message or another figure changes no hash of a training.

All of reidlib is read when reidlib is first imported, for what this process runs is the code as it was then: a file that
is edited later does not lend its hash to what the old code makes (`edited` names such files).
"""

import ast
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[1]
PACKAGES = ("reidlib", "toydata", "publishing")
# what is in a key by its values, or only where it was made: their code changes no number
VALUES = {f"reidlib.{name}" for name in (
    "params", "params.networks", "params.schema", "params.reading", "methods", "sources", "provenance", "content", "progress",
)}  # fmt: skip
# from these a unit names the entries that it uses
TABLES = {
    "reidlib.gates.GATES", "reidlib.losses.distillation.TERMS", "reidlib.data.layouts.LAYOUTS",
    "reidlib.towers.BUILDERS", "reidlib.towers.MINIATURES",
}  # fmt: skip


def _read_all() -> dict[str, str]:
    found = {}
    for path in (path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


_TEXTS = _read_all()
_PLUGINS: dict[str, Path] = {}  # module -> its file


class Module(NamedTuple):
    """What a module defines and what it imports from this project."""

    definitions: dict[str, ast.AST]
    imports: dict[str, tuple[str, str | None]]  # alias -> module and the name in it; None: the module itself
    statements: list[ast.stmt]  # what runs at its import besides: it may change what everything does


def edited() -> dict[str, str]:
    """The project's modules that are no longer what this process read at its start: module -> its file."""
    now = _read_all() | {name: file.read_text() for name, file in _PLUGINS.items() if file.exists()}
    changed = [name for name, text in _TEXTS.items() if now.get(name, text) != text]
    return {name: str(_PLUGINS.get(name, name.replace(".", "/") + ".py")) for name in changed}


def refuse_edited(code: Iterable[str]) -> None:
    """Warn of edited files among those that define `code` (of `reached`): what is made runs as this process read them.

    Raises RuntimeError where an edited module was not imported yet, so that the new code would run under the old hash.
    """
    wanted = {name.partition(":")[0] if ":" in name else name.rpartition(".")[0] for name in code}
    for name, file in edited().items():
        if name in wanted and name not in sys.modules:
            raise RuntimeError(f"{file} was edited since this process started, and is not loaded yet: restart the kernel")
        if name in wanted:
            print(f"{file} was edited since this process started: what is made now is made by, and kept as of, the code "
                  "before the edit. Restart the kernel to use the new.", file=sys.stderr)  # fmt: skip


def load_plugin(file: str | Path) -> None:
    """Import a Python file that adds layouts, gates or terms to their tables; its functions are followed like reidlib's.

    Once in a process. Raises RuntimeError naming the file where it can't be read or run.
    """
    file = Path(file).resolve()
    if file in _PLUGINS.values():
        return
    name = f"plugin_{file.stem}" + "_" * sum(other.stem == file.stem for other in _PLUGINS.values())
    try:
        text = file.read_text()
        module = types.ModuleType(name)
        module.__file__ = str(file)
        sys.modules[name] = module  # where dataclasses and pickles look for it
        exec(compile(text, str(file), "exec"), module.__dict__)
    except Exception as error:
        sys.modules.pop(name, None)
        raise RuntimeError(f"plugin {file}: {type(error).__name__}: {error}") from error
    _TEXTS[name], _PLUGINS[name] = text, file
    for cached in (_reached, _module, _definition):
        cached.cache_clear()


def reached(*functions: Callable) -> dict[str, str]:
    """All that some functions or classes reach, with a hash (12 hex digits) of each: {"module.name": hash}.

    One from outside this project (a notebook's) counts with all of the file that defines it.
    """
    return dict(_reached(functions))


def reached_from(text: str) -> dict[str, str]:
    """The same for a script's or notebook's source, itself included as "__main__"."""
    return _follow(_names(ast.parse(text), _module_of(text))) | {"__main__": _hash(ast.parse(text))}


@cache
def _reached(functions: tuple) -> dict[str, str]:
    found: dict[str, str] = {}
    for function in functions:
        if not hasattr(function, "__qualname__"):
            raise TypeError(f"{function!r} is no function or class: which code it runs can't be told")
        module, name = function.__module__, function.__qualname__.partition(".")[0]
        if module in _TEXTS and name in _module(module).definitions:
            found |= _follow([(module, name)])
        else:  # a lambda counts with all of its file, too
            text = _TEXTS.get(module) or _text_of(function)
            found |= _follow(_names(ast.parse(text), _module_of(text), module if module in _TEXTS else None))
            found[f"{module}.{function.__qualname__}"] = _hash(ast.parse(text))
    return found


def _text_of(function: Callable) -> str:
    file = inspect.getsourcefile(function)
    return Path(file).read_text() if file and Path(file).is_file() else inspect.getsource(function)


def _follow(start: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The definitions at `start`, (module, name) each, and all that they lead to."""
    found, todo, modules = {}, list(start), set()
    while todo:
        module, name = todo.pop()
        full = f"{module}.{name}"
        if full in found or module in VALUES or full in TABLES:
            continue
        if full in _TEXTS and name not in _module(module).definitions:
            continue  # a module itself: its names are followed where they are used
        of = _module(module)
        if module not in modules:
            modules.add(module)
            for number, statement in enumerate(of.statements):
                found[f"{module}:{number}"] = _hash(statement)
                todo += _names(statement, of, module)
        if name in of.definitions:
            found[full], leads_to = _definition(module, name)
            todo += leads_to
        elif name in of.imports and of.imports[name][1] is not None:
            todo.append(of.imports[name])
    return found


@cache
def _definition(module: str, name: str) -> tuple[str, list[tuple[str, str]]]:
    """Hash of a definition, and what it mentions."""
    node = _module(module).definitions[name]
    return _hash(node), _names(node, _module(module), module)


def _names(node: ast.AST, of: Module, module: str | None = None) -> list[tuple[str, str]]:
    """The (module, name) of this project that a piece of code mentions."""
    found = []
    for part in ast.walk(_stripped(node)):
        if isinstance(part, ast.Name):
            if part.id in of.definitions and module is not None:
                found.append((module, part.id))
            elif part.id in of.imports and of.imports[part.id][1] is not None:
                found.append(of.imports[part.id])
        elif isinstance(part, ast.Attribute):
            first, _, rest = ast.unparse(part.value).partition(".")
            if first in of.imports and of.imports[first][1] is None:
                target = ".".join(filter(None, [of.imports[first][0], rest]))
                if target in _TEXTS:
                    found.append((target, part.attr))
    return found


@cache
def _module(name: str) -> Module:
    return _module_of(_TEXTS[name])


def _module_of(text: str) -> Module:
    tree, definitions, statements = ast.parse(text), {}, []
    imports: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in PACKAGES:
            for alias in node.names:
                module, name = f"{node.module}.{alias.name}", alias.asname or alias.name
                imports[name] = (module, None) if module in _TEXTS else (node.module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                package = alias.name.partition(".")[0]
                if package in PACKAGES:
                    imports[alias.asname or package] = (alias.name if alias.asname else package, None)

    def define(name: str, node: ast.stmt) -> None:  # a name that is given twice is all that it is given
        definitions[name] = ast.Module([definitions[name], node], []) if name in definitions else node

    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            define(node.name, node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in (part for t in targets for part in ast.walk(t) if isinstance(part, ast.Name)):
                define(target.id, node)
        elif not isinstance(node, (ast.Import, ast.ImportFrom)) and not _is_text(node):
            statements.append(node)
    return Module(definitions, imports, statements)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


class _Strip(ast.NodeTransformer):
    """Takes away what does not change what code computes."""

    def generic_visit(self, node):
        node = super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, [statement for statement in block if not _is_text(statement)])
        return node

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node):
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Raise(self, node):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=raised, cause=None)


def _stripped(node: ast.AST) -> ast.AST:
    return _Strip().visit(ast.parse(ast.unparse(node)))


def _hash(node: ast.AST) -> str:
    return hashlib.sha256(_dump(_stripped(node)).encode()).hexdigest()[:12]


def _dump(node) -> str:
    """As ast.dump, but the same in all versions of Python: empty fields, which come and go between them, are left out."""
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    inside = [(name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "kind", "type_comment")]
    return f"{type(node).__name__}({','.join(f'{n}={_dump(v)}' for n, v in inside if v is not None and v != [])})"
