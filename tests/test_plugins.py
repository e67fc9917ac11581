"""A new term, gate and layout, written outside reidlib and used by name: only what uses them is trained."""

import sys
import textwrap

import pytest
import tiny

from reidlib import sources
from reidlib.data.layouts import LAYOUTS
from reidlib.gates import GATES
from reidlib.losses import TERMS
from reidlib.params import ParamsError
from reidlib.study import open_study
from reidlib.units import FINISHED

PLUGIN = """
import re
from pathlib import Path
import pandas as pd
from reidlib.data.layouts import LAYOUTS
from reidlib.gates import GATES, Soft
from reidlib.losses import TERMS

def squared(output, target, kd):
    return (output.logits - target.logits).square().mean() / kd.temperature

class Firm(Soft):
    def weights(self, embeddings):
        return (SHARPNESS * self.soft_weights(embeddings).log()).softmax(1)

SHARPNESS = 2

def read_flat(root):
    parts = {}
    for part in ("train", "query", "gallery"):
        found = [re.match(r"(\\d+)_c(\\d)", path.name) for path in sorted((root / part).iterdir())]
        rows = [(f"{part}/{match.string}", int(match[1]), int(match[2])) for match in found if match]
        parts[part] = pd.DataFrame(rows, columns=["path", "pid", "camid"])
    return tuple(parts.values())

TERMS["squared"] = squared
GATES["firm"] = Firm
LAYOUTS["flat"] = read_flat
"""


@pytest.fixture(scope="module")
def plugged(made):
    """plugged(name, changes) is a study beside the smallest one, in the same project, with the plugin; then all is as it was."""
    tables = (TERMS, GATES, LAYOUTS, sources._TEXTS, sources._PLUGINS)
    before, modules = [dict(table) for table in tables], set(sys.modules)
    root = made[0].parents[1]
    (root / "mine.py").write_text(textwrap.dedent(PLUGIN))
    yield lambda name, **changes: tiny.write(root, name, {"plugins": ["../mine.py"], **changes})
    for table, content in zip(tables, before):
        table.clear()
        table.update(content)
    for name in set(sys.modules) - modules:
        if name.startswith("plugin_"):
            del sys.modules[name]
    for cached in (sources._reached, sources._module, sources._definition):
        cached.cache_clear()


@pytest.fixture
def trained(monkeypatch):
    """The labels of what is trained."""
    from reidlib.training import train

    labels = []
    monkeypatch.setattr(
        "reidlib.making.train", lambda *given, label, **rest: labels.append(label) or train(*given, label=label, **rest)
    )
    return labels


def missing(study, methods, dataset="vehicles"):
    """Which networks are to be trained for methods on a data set, by their labels."""
    found = (study.plan.network(method, dataset, 0) for method in methods)
    return [unit.label for unit in found if unit is not None and study.store.state(unit)[0] != FINISHED]


def test_loading_a_plugin_re_keys_nothing(made, plugged):
    before = tiny.keys(made[0])
    assert tiny.keys(plugged("unused")) == before


def test_a_new_term_trains_the_students_that_have_it(made, plugged, trained):
    study = open_study(
        plugged("term", **{"distillation.terms": {"logit": 1, "embedding": 1, "relational": 1, "squared": 0.5}})
    )
    assert missing(study, study.methods) == [f"student+kd:{t} vehicles seed 0" for t in ("clip", "align", "uniform", "moe")]
    for method, result in made[1].items():
        found = study.evaluate(method, "vehicles", 0)
        assert found.mAP == result.mAP or method.startswith("student+kd")
    assert trained == [f"student+kd:{t} vehicles seed 0" for t in ("clip", "align", "uniform", "moe")]
    assert {"logit", "squared"} <= set(study.history("student+kd:moe", "vehicles", 0))
    base = open_study(made[0]).plan
    for variant in ("terms=logit", "terms=embedding+relational"):
        method = f"student+kd:moe/{variant}"
        assert study.plan.network(method, "vehicles", 0).key == base.network(method, "vehicles", 0).key


def test_a_new_gate_trains_itself(made, plugged, trained):
    study = open_study(plugged("gate", **{"moe.gates": ["soft", "top1", "uniform", "concat", "router", "firm"]}))
    assert missing(study, study.methods) == ["moe:firm vehicles seed 0"]
    assert 0 < study.evaluate("moe:firm", "vehicles", 0).mAP <= 1 and "moe:firm" in study.methods
    assert study.model("moe:firm", "vehicles", 0).dim == 48 and len(study.gate_weights("firm", "vehicles", 0))
    for method in made[1]:
        study.evaluate(method, "vehicles", 0)
    assert trained == ["moe:firm vehicles seed 0"]


def test_a_new_layout_trains_on_its_data_set(made, plugged, trained, monkeypatch):
    monkeypatch.delenv("REIDLIB_DATA", raising=False)
    people, root = open_study(made[0]).dataset("people"), made[0].parents[1] / "data" / "flat"
    for part in ("train", "query", "gallery"):
        (root / part).mkdir(parents=True, exist_ok=True)
        for row in getattr(people, part).itertuples():
            if row.pid >= 0:
                name = f"{row.pid}_c{row.camid}_{row.Index}.jpg"
                (root / part / name).exists() or (root / part / name).symlink_to(row.path)
    new = {"layout": "flat", "size": [32, 32], "root": "flat"}
    study = open_study(plugged("layout", **{"datasets.mine": new, "mixed": None}))
    before = tiny.keys(made[0])
    assert not [label for label, key in tiny.keys(plugged("layout", **{"datasets.mine": new, "mixed": None})).items()
                if label in before and before[label] != key]  # fmt: skip
    assert missing(study, study.methods) == []
    assert 0 < study.evaluate("student", "mine", 0).mAP <= 1
    study.evaluate("student", "vehicles", 0, test="mine")
    assert trained == ["student mine seed 0"]


def test_an_edit_of_the_plugin_re_keys_what_uses_it(plugged, edited):
    gates = ["soft", "top1", "uniform", "concat", "router", "firm"]
    file = plugged(
        "both", **{"moe.gates": gates, "distillation.terms": {"logit": 1, "squared": 0.5}, "ablations.terms": ["logit"]}
    )
    at, kinds = "vehicles seed 0", ("moe:", "student", "expert:")
    networks = lambda labels: {label for label in labels if label.endswith(at) and label.startswith(kinds)}  # noqa: E731
    before = tiny.keys(file)
    edited("plugin_mine", "SHARPNESS = 2", "SHARPNESS = 3")
    assert networks(tiny.changed(before, tiny.keys(file))) == {f"moe:firm {at}"}
    edited("plugin_mine", "square().mean()", "abs().mean()")
    found = networks(tiny.changed(before, tiny.keys(file))) - {f"moe:firm {at}"}
    assert f"student+kd:moe {at}" in found and all(label.startswith("student+kd:") for label in found)
    assert f"student+kd:moe/terms=logit {at}" not in found
    edited("plugin_mine", "sorted(", "list(")
    assert networks(tiny.changed(before, tiny.keys(file))) == found | {f"moe:firm {at}"}, (
        "a layout is known by what it gives"
    )


def test_a_plugin_that_is_not_there_and_a_name_it_does_not_give_are_refused(made, plugged):
    with pytest.raises(RuntimeError, match=r"plugin .*nowhere\.py: FileNotFoundError"):
        open_study(plugged("lost", plugins=["nowhere.py"]))
    with pytest.raises(ParamsError, match=r"moe\.gates: there is no 'firmm'; did you mean 'firm'\?"):
        open_study(plugged("wrong", **{"moe.gates": ["soft", "uniform", "firmm"]}))
