import copy

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import timing
from reidlib import profiling, results
from reidlib.encoders import build
from reidlib.models import Embedder
from reidlib.params import EncoderParams
from reidlib.training import Machine

CPU = Machine("cpu")
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)


class Small(nn.Module):
    """3x3 convolution to 8 channels on 16x16 pictures, then a linear layer to 10."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 256, 10))

    def forward(self, images):
        return self.layers(images.float())


@pytest.fixture(scope="module")
def profiled():
    models = {"a": Small(), "b": nn.Sequential(Small(), nn.Linear(10, 5, bias=False))}
    table = profiling.profile(models, PICTURES, CPU, runs=3, batch=4)
    return table, table.pivot(index="method", columns="metric", values="value")


def test_one_row_a_model_and_metric(profiled):
    table, values = profiled
    assert list(table.columns) == ["method", "metric", "value", "spread"]
    assert set(values.columns) == set(results.COSTS) and list(values.index) == ["a", "b"]
    assert (values > 0).all(axis=None)
    timed = table["metric"].isin(["latency_ms", "throughput"])
    assert (table["spread"].notna() == timed).all() and (table["spread"][timed] >= 0).all()


def test_counts_are_exact(profiled):
    _, values = profiled
    parameters = 8 * 3 * 9 + 8 * 256 * 10 + 10
    assert list(values["parameters"]) == [parameters, parameters + 50]
    macs = 256 * 8 * 3 * 9 + 8 * 256 * 10
    assert list(values["macs"]) == [macs, macs + 50]
    header = values["file_mb"] * 1e6 - 4 * values["parameters"]
    assert ((header > 0) & (header < 1000)).all()


def test_memory_holds_weights_and_activations(profiled):
    _, values = profiled
    least = 4 * (values.loc["a", "parameters"] + 4 * 3 * 256 + 4 * 8 * 256)  # weights, pictures, convolved
    # the backend may pad the channels and copy them once, no more
    assert least <= 1e6 * values.loc["a", "peak_memory_mb"] < least + 4 * 3 * 4 * 8 * 256


def test_fused_attention_is_counted():
    layer = nn.MultiheadAttention(16, 2, batch_first=True, bias=False).eval()

    class Attend(nn.Module):
        def forward(self, x):
            return layer(x, x, x, need_weights=False)[0]

    tokens = 10
    expected = 4 * tokens * 16 * 16 + 2 * tokens * tokens * 16  # projections in and out; scores, weighted sum
    assert profiling.count_macs(Attend(), torch.zeros(1, tokens, 16)) == expected


def test_the_deployed_copy_leaves_the_callers_model_alone():
    encoder = build(EncoderParams(name="timm:test_efficientnet"), (32, 32))
    model = Embedder(encoder, identities=7, teacher_dim=12).train()
    before = copy.deepcopy(model.state_dict())
    costs = profiling.profile({"student": model}, np.zeros((1, 3, 32, 32), np.uint8), CPU, runs=1, batch=2)
    table = costs.set_index("metric")["value"]
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert before.keys() == model.state_dict().keys()
    expected = sum(p.numel() for p in encoder.parameters()) + 2 * encoder.dim  # BNNeck: scale and shift
    assert table["parameters"] == expected
    assert np.isfinite(table).all()


def test_macs_are_the_mean_over_pictures_where_they_depend_on_the_picture():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.large = nn.Linear(768, 10), nn.Linear(768, 30)

        def forward(self, images):
            flat, easy = images.float().flatten(1), images[:, 0, 0, 0] == 0
            return self.small(flat[easy]), self.large(flat[~easy])

    pictures = np.zeros((2, 3, 16, 16), np.uint8)
    pictures[1] = 1
    table = profiling.profile({"routed": Routed()}, pictures, CPU, runs=1, batch=2).set_index("metric")["value"]
    assert table["macs"] == 768 * (10 + 30) / 2


def test_machine_name_tells_the_version():
    assert f"torch {torch.__version__.partition('+')[0]}" in timing.machine_name(CPU)
