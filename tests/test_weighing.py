"""One weight for all pictures, against plain arithmetic and against what the experts and their concatenation have alone."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from reidlib import weighing
from reidlib.retrieval import EmbeddingSet, evaluate


def pictures(seed: int, clear: float, dim: int, n: int = 60) -> EmbeddingSet:
    """Embeddings of ten identities in three cameras; clear: how far identities are apart."""
    draw = np.random.default_rng(seed)
    pid = np.arange(n) % 10
    features = clear * np.random.default_rng(99).normal(size=(10, dim))[pid] + draw.normal(size=(n, dim))
    return EmbeddingSet(features.astype(np.float32), pid, draw.integers(0, 3, n))


@pytest.fixture
def study() -> SimpleNamespace:
    """Three experts, of which the first is the best."""
    sets = {}
    for name, clear, dim in (("a", 0.8, 16), ("b", 0.4, 24), ("c", 0.2, 8)):
        for part, seed in (("query", 1), ("gallery", 2)):
            of = pictures(seed, clear, dim)
            camid = np.random.default_rng(seed).integers(0, 3, len(of))  # the same for all
            sets[name, part] = EmbeddingSet(of.features, of.pid, camid)
    params = SimpleNamespace(experts={"a": None, "b": None, "c": None})
    return SimpleNamespace(params=params, embedding_set=lambda method, train, seed, test, part: sets[method.name, part])


def test_cosines_are_the_weighted_means_of_the_experts():
    x, y = pictures(0, 1, 16), pictures(1, 1, 5)
    both = weighing.joined([x, y], [0.3, 0.7]).features
    cosines = [F.normalize(one.features) @ F.normalize(one.features).T for one in (x, y)]
    torch.testing.assert_close(F.normalize(both) @ F.normalize(both).T, 0.3 * cosines[0] + 0.7 * cosines[1])
    with pytest.raises(ValueError, match="shorter"):
        weighing.joined([x, y], [1.0])


def test_the_curve_begins_without_the_first_expert_and_ends_with_it_alone(study):
    curve = weighing.constant(study, "people", seed=0, steps=3)
    assert curve["weight"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])

    def of(*names: str) -> float:
        sides = []
        for part in ("query", "gallery"):
            sets = [study.embedding_set(SimpleNamespace(name=name), "people", 0, None, part) for name in names]
            sides.append(EmbeddingSet(torch.cat([F.normalize(s.features) for s in sets], 1), sets[0].pid, sets[0].camid))
        return evaluate(*sides).mAP

    assert curve["mAP"].tolist()[::3] == pytest.approx([of("b", "c"), of("a")], abs=1e-5)
    assert curve["mAP"][1] == pytest.approx(of("a", "b", "c"), abs=1e-5)  # equal weights: the concatenation
    assert curve["mAP"].nunique() == 4


def test_gates_stand_at_their_mean_weights(study):
    weights = {"soft": [0.2, 0.6], "quality": [0.5, 0.7]}
    study.gate_weights = lambda gate, dataset, seed: pd.DataFrame({"a": weights[gate], "b": 0.1, "c": 0.1})
    study.evaluate = lambda method, dataset, seed: SimpleNamespace(mAP={"soft": 0.5, "quality": 0.6}[method.gate])
    found = weighing.of_gates(study, ["soft", "quality"], "people", 0)
    assert found["method"].tolist() == ["moe:soft", "moe:quality"] and found["mAP"].tolist() == [0.5, 0.6]
    assert found["weight"].tolist() == pytest.approx([0.4, 0.6])
