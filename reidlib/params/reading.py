"""Reading a params file: found, read without doubled keys, changed by overrides, checked, and explained where wrong."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import dpath
import yaml
from pydantic import ValidationError

from reidlib.params.schema import DistillationParams, MoeParams, StudyParams, nearest

_MAPPINGS = {("moe", "balance"): MoeParams, ("distillation", "terms"): DistillationParams}  # that have defaults


class ParamsError(ValueError):
    """A params file that can't be run; the message names the file, each bad key and what would do."""


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once; one that a merge (<<) brings too is not doubled."""

    def compose_mapping_node(self, anchor):
        node, seen = super().compose_mapping_node(anchor), set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise yaml.composer.ComposerError(None, None, f"the key '{key.value}' stands there twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node


def find(study: str | Path) -> Path:
    """The params file `study` names: a path, or one relative to the working directory or a folder above it.

    Raises ParamsError naming every place looked at when there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / study).is_file():
            return (folder / study).resolve()
    nearby = sorted(str(p.relative_to(f)) for f in (here, *here.parents) for p in f.glob("params/*.yaml"))
    hint = nearest(str(study), nearby) if nearby else ""
    raise ParamsError(f"{study}: no such params file in {here} or a folder above it{hint}")


def load(study: str | Path, overrides: Sequence[str] = ()) -> StudyParams:
    """Read and check a params file, see `find`.

    overrides: "a.b.c=value" each, value in YAML, as `student.recipe.lr=0.001`.
    Raises ParamsError: in one message, all that is wrong with the file.
    """
    path = find(study)
    try:
        tree = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: a params file is a mapping of keys, as in params/demo.yaml")
    for override in overrides:
        tree = _overridden(tree, override)
    try:
        return StudyParams.model_validate(tree)
    except ValidationError as error:
        raise ParamsError(_explain(error, path)) from None


def check_names(
    params: StudyParams, path: Path, layouts: Collection[str], gates: Collection[str], terms: Collection[str]
) -> None:
    """Raises ParamsError where the params name a layout, gate or term that no table has."""
    gates = [*gates, "router"]
    wanted = [(f"datasets.{name}.layout", data.layout, layouts) for name, data in params.datasets.items()]
    wanted += [("moe.gates", gate, gates) for gate in params.moe.gates]
    wanted += [("moe.balance", gate, gates) for gate in params.moe.balance]
    wanted += [("distillation.terms", term, terms) for term in params.distillation.terms]
    wrong = [f"- {key}: there is no '{name}'{nearest(name, list(has))}" for key, name, has in wanted if name not in has]
    if wrong:
        raise ParamsError("\n".join([f"{path}: {len(wrong)} thing(s) to mend before this study can run", *wrong]))


def _overridden(tree: dict, override: str) -> dict:
    key, equals, value = override.partition("=")
    if not equals:
        raise ParamsError(f"override '{override}': write it key.key=value, e.g. student.recipe.lr=0.001")
    tree = json.loads(json.dumps(tree))  # by a YAML alias, one mapping may stand in two places
    for (section, name), model in _MAPPINGS.items():
        # one weight is changed, not all the others too
        if key.startswith(f"{section}.{name}.") and isinstance(tree.get(section), dict):
            tree[section].setdefault(name, dict(model.model_fields[name].default))
    try:
        dpath.new(tree, key, yaml.safe_load(value), separator=".")
    except yaml.YAMLError as error:
        raise ParamsError(f"override '{override}': not readable as YAML: {error}") from None
    except (dpath.exceptions.PathNotFound, TypeError, ValueError, AttributeError):
        raise ParamsError(f"override '{override}': what stands before the last dot is no mapping in the file") from None
    return tree


def _explain(error: ValidationError, path: Path) -> str:
    lines = [f"{path}: {error.error_count()} thing(s) to mend before this study can run"]
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"- {where}: unknown key{nearest(str(item['loc'][-1]), _siblings(item['loc']))}")
        else:
            given = "" if item["type"] in ("missing", "value_error") else f" (given: {item['input']!r})"
            lines.append(f"- {where or 'the file'}: {item['msg'].removeprefix('Value error, ')}{given}")
    return "\n".join(lines)


def _siblings(loc: tuple) -> list[str]:
    """The valid keys where the last part of `loc` stands."""
    schema = node = StudyParams.model_json_schema()
    for part in loc[:-1]:
        named = node.get("patternProperties", {}).values()  # of a mapping, all alike
        node = node.get("properties", {}).get(part) or next(iter(named), {})
        node = next((option for option in node.get("anyOf", ()) if "$ref" in option), node)
        node = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    return list(node.get("properties", {}))
