"""README's how-tos, as somebody new would follow them: its YAML in a study, its crops and tables, its plugin."""

import copy
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import yaml

from reidlib import params, sources
from reidlib.gates import GATES
from reidlib.losses import TERMS
from reidlib.study import open_study

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = dict(re.findall(r"```(yaml|python)\n(?:# (?:params/)?mine\.\w+\n)(.*?)```", README, re.DOTALL))
YAML = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def block(start: str) -> dict:
    return yaml.safe_load(next(text for text in YAML if text.startswith(start)))


def merged(tree: dict, more: dict) -> dict:
    both = {key: merged(tree[key], value) if isinstance(value, dict) and isinstance(tree.get(key), dict) else value
            for key, value in more.items()}  # fmt: skip
    return tree | both


def test_each_block_of_yaml_is_taken(tmp_path):
    assert len(YAML) == 3
    (tmp_path / "params").mkdir()
    (tmp_path / "params/mine.py").write_text("")
    for text in YAML:
        tree = merged(copy.deepcopy(tiny.TREE) | {"ablations": None}, yaml.safe_load(text))
        for dataset in tree["datasets"].values():
            dataset.get("builtin", {})["train_ids"] = 16  # as many as a batch has
        tree["distillation"].get("terms", {}).pop("gap", None)  # that plugin has its own test
        file = tmp_path / "params/mine.yaml"
        file.write_text(yaml.safe_dump(tree))
        assert params.load(file)


def test_the_study_of_ones_own_data_is_whole(tmp_path):
    file = tmp_path / "params" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(next(text for text in YAML if text.startswith("title:")))
    assert params.load(file).datasets.keys() == {"mine", "other"}


def test_a_third_expert_and_another_student_by_name(tmp_path):
    tree = merged(tiny.TREE, block("experts:"))
    small = {"epochs": 1, "p": 4, "k": 2}
    for spec in (tree["experts"]["resnet50"], tree["student"]):
        spec["encoder"] = spec["encoder"] | {"weights": None}  # no network here
        spec["recipe"] = spec["recipe"] | small
    study = open_study(tiny.write(tmp_path, "mine", **tree))
    weights = study.gate_weights("soft", "vehicles", 0)
    assert [*weights.columns[-3:]] == ["clip", "align", "resnet50"]
    assert weights[["clip", "align", "resnet50"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    for method in ("student+kd:resnet50", "student+kd:moe"):
        assert 0 < study.evaluate(method, "vehicles", 0).mAP <= 1
    assert sum(p.numel() for p in study.model("student", "vehicles", 0).parameters()) > 11e6  # a ResNet-18


def test_crops_in_a_table_become_a_data_set(tmp_path, monkeypatch):
    monkeypatch.delenv("REIDLIB_DATA", raising=False)
    from PIL import Image

    spec, rng, rows = block("title:")["datasets"]["other"], np.random.default_rng(0), []
    pictures = tmp_path / "data" / spec["root"]
    pictures.mkdir(parents=True)
    for split, pids in {"train": range(8), "query": range(8, 12), "gallery": range(8, 12)}.items():
        for pid in pids:
            for camid in (1, 2) if split == "train" else (1 + (split == "gallery"),):
                path = f"{split}-{pid}-{camid}.png"
                Image.fromarray(rng.integers(0, 256, (64, 32, 3), np.uint8)).save(pictures / path)
                rows.append((path, pid, camid, split))
    pd.DataFrame(rows, columns=["path", "pid", "camid", "split"]).to_csv(tmp_path / "data" / spec["table"], index=False)
    spec |= {"size": [32, 32], "test_only": False}
    changes = {
        "ablations": None,
        "mixed": None,
        "experts.clip": None,
        "experts.align": None,
        "pretraining": None,
        "moe.router": None,
    }
    experts = {name: {"encoder": {"name": "timm:test_byobnet"}, "recipe": tiny.RECIPE} for name in ("one", "two")}
    file = tiny.write(tmp_path, "mine", {**changes, "experts": experts, "datasets": {"other": spec},
                                         "moe.gates": ["soft"], "distillation.teachers": ["moe"]})  # fmt: skip
    assert 0 < open_study(file).evaluate("student+kd:moe", "other", 0).mAP <= 1


GATE = """
from reidlib.gates import GATES, Fusion


class Half(Fusion):
    def weights(self, unit):
        return unit[0].new_tensor([0.75, 0.25]).expand(len(unit[0]), 2)


GATES["soft"] = Half
"""


def test_a_gate_of_ones_own_in_the_place_of_soft_teaches_and_is_judged(tmp_path, monkeypatch):
    monkeypatch.setitem(GATES, "soft", GATES["soft"])
    (tmp_path / "params").mkdir()
    (tmp_path / "params/mine.py").write_text(GATE)
    try:
        study = open_study(tiny.write(tmp_path, "mine", {"plugins": ["mine.py"]}))
        weights = study.gate_weights("soft", "vehicles", 0)
        assert (weights["clip"] == 0.75).all() and (weights["align"] == 0.25).all()
        assert 0 < study.evaluate("student+kd:moe", "vehicles", 0).mAP <= 1
    finally:
        sources._PLUGINS.clear()


def test_a_term_of_ones_own(tmp_path):
    try:
        changes = yaml.safe_load(BLOCKS["yaml"])
        (tmp_path / "params").mkdir()
        (tmp_path / "params/mine.py").write_text(BLOCKS["python"])
        file = tiny.write(tmp_path, "mine", changes)
        history = open_study(file).history("student+kd:moe", "vehicles", 0)
        assert {"gap", "embedding"} <= set(history.columns) and history["gap"].gt(0).all()
    finally:
        TERMS.pop("gap", None)
        sources._PLUGINS.clear()
