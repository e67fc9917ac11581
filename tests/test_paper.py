"""The paper's configuration, with random weights since the real ones can't be had everywhere: sizes and costs."""

import pytest
import torch

from reidlib.encoders import build
from reidlib.models import Embedder, Fusion, MixtureOfExperts
from reidlib.params import load
from reidlib.profiling import profile
from reidlib.training import Machine

torch.set_num_threads(1)
NULL = ["experts.clip.encoder.weights=null", "experts.align.encoder.weights=null", "student.encoder.weights=null"]


@pytest.fixture(scope="module")
def costs():
    """Parameters and MACs of experts, MoE and student on Market-1501's pictures."""
    paper = load("params/paper.yaml", NULL)
    size, identities = paper.datasets["market1501"].size, 751
    clip, align = (Embedder(build(e.encoder, size), identities) for e in paper.experts.values())
    moe = MixtureOfExperts([clip, align], Fusion([clip.dim, align.dim], paper.moe.width, identities))
    student = Embedder(build(paper.student.encoder, size), identities, moe.dim)
    models = {"clip": clip, "align": align, "moe": moe, "student": student}
    rows = profile(models, size, Machine("cpu"), runs=1, batch=1)
    return rows.pivot(index="method", columns="metric", values="value")


def test_the_experts_are_the_real_towers(costs):
    assert costs.parameters["clip"] == pytest.approx(86.2e6, abs=0.2e6)
    assert costs.parameters["align"] == pytest.approx(62.1e6, abs=0.2e6)


def test_the_student_is_as_small_as_the_paper_claims(costs):
    assert costs.parameters["student"] <= 0.06 * costs.parameters["moe"]  # 94 % fewer
    assert costs.parameters["student"] <= 0.08 * costs.parameters["clip"]  # 92 % fewer
    assert costs.macs["student"] <= 0.06 * costs.macs["moe"]
