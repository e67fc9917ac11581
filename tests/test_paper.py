"""The paper's configuration, with random weights since the real ones can't be had everywhere: sizes and costs."""

import numpy as np
import pytest
import torch

from reidlib.measuring import untrained
from reidlib.profiling import profile
from reidlib.study import open_study
from reidlib.training import Machine

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def costs():
    """Parameters and MACs of experts, MoE, router and student."""
    inputs = open_study("params/demo.yaml").plan.costs("paper").inputs
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, *inputs["size"]), dtype=np.uint8)
    models = untrained(inputs["networks"], inputs["width"], inputs["size"], noise)
    rows = profile(models, noise, Machine("cpu"), runs=1, batch=2)
    rows["method"] = rows["method"].str.removesuffix("/configuration=paper")
    return rows.pivot(index="method", columns="metric", values="value")


def test_the_experts_are_the_real_towers(costs):
    assert costs.parameters["expert:clip"] == pytest.approx(86.2e6, abs=0.2e6)
    assert costs.parameters["expert:align"] == pytest.approx(62.1e6, abs=0.2e6)


def test_the_student_is_as_small_as_the_paper_claims(costs):
    assert costs.parameters["student"] <= 0.06 * costs.parameters["moe:soft"]  # 94 % fewer
    assert costs.parameters["student"] <= 0.08 * costs.parameters["expert:clip"]  # 92 % fewer
    assert costs.macs["student"] <= 0.06 * costs.macs["moe:soft"]


def test_the_router_runs_half_of_the_experts(costs):
    experts = costs.macs[["expert:clip", "expert:align"]].mean()
    assert experts < costs.macs["moe:router"] < 1.05 * experts
    assert costs.parameters["moe:router"] > costs.parameters["moe:soft"]
