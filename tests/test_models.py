"""Embedder, gates and MixtureOfExperts: what they return, where gradients go, and what a fresh fusion is equal to."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.encoders import Encoder, build
from reidlib.gates import GATES
from reidlib.models import Embedder, MixtureOfExperts, RoutedExperts, Router, deployed
from reidlib.params import EncoderParams

torch.set_num_threads(1)
KINDS = ["soft", "unbalanced", "top1", "quality", "uniform", "concat"]
DIMS = [5, 9]


def pictures(n=4, seed=0):
    return torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def embeddings(n=6, dims=DIMS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(n, dim, generator=generator) for dim in dims]


def expert(dim, identities=3, **more):
    network = nn.Sequential(nn.Conv2d(3, dim, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Embedder(Encoder(network, (16, 16), (0.5,) * 3, (0.5,) * 3), identities, **more)


def fusion(kind, width=32, dims=DIMS, seed=0):
    torch.manual_seed(seed)
    return GATES[kind](dims, width, 7)


def decided(kind):
    """A fusion whose gate weighs pictures differently, as after training."""
    fused = fusion(kind).eval()
    last = fused.gate[-1] if isinstance(fused.gate, nn.Sequential) else fused.gate
    nn.init.normal_(last.weight)
    return fused


def test_an_embedder_says_all_in_training_and_only_the_embedding_in_evaluation():
    model = expert(8, teacher_dim=5)
    output = model.train()(pictures())
    assert output.feature.shape == output.embedding.shape == (4, 8)
    assert output.logits.shape == (4, 3) and output.projected.shape == (4, 5) and output.weights is None
    assert torch.allclose(output.embedding.mean(0), torch.zeros(8), atol=1e-5)  # BNNeck
    embedding = model.eval()(pictures())
    assert embedding.shape == (4, 8) and embedding.dtype == torch.float32
    norm = model.neck.norm
    expected = (model.encoder(pictures()) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    assert torch.allclose(embedding, expected, atol=1e-5)
    assert expert(8).train()(pictures()).projected is None


def test_the_necks_shift_is_never_trained():
    model = expert(8)
    model.train()(pictures()).logits.sum().backward()
    assert model.neck.norm.bias.grad is None and not model.neck.norm.bias.any()
    assert model.neck.norm.weight.grad is not None


def test_an_embedder_takes_an_encoder_by_name():
    model = Embedder(build(EncoderParams(name="timm:test_efficientnet"), (32, 32)), identities=3).eval()
    assert model(pictures()).shape == (4, model.dim)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pictures_weights_sum_to_one(kind):
    fused = fusion(kind) if kind in ("uniform", "concat") else decided(kind)
    weights = fused.weights(embeddings())
    assert weights.shape == (6, 2) and (weights >= 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(6))
    if kind in ("uniform", "concat"):
        assert (weights == 0.5).all()
    else:
        assert len(weights.unique(dim=0)) > 1, "the gate must look at the picture"


def test_the_quality_gate_sees_lengths_alone():
    fused, x = decided("quality"), embeddings()
    turned = [-each[:, torch.randperm(each.shape[1])] for each in x]
    assert torch.allclose(fused.weights(turned), fused.weights(x), atol=1e-6)
    assert not torch.allclose(fused.weights([2 * x[0], x[1]]), fused.weights(x), atol=1e-3)


def test_top1_uses_one_expert_exactly_and_still_teaches_the_gate():
    fused = decided("top1").train()
    x = embeddings()
    weights = fused.weights(x)
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    chosen = weights.argmax(1)
    expected = torch.stack([fused.projections[e](F.normalize(x[e][i], dim=0)) for i, e in enumerate(chosen)])
    output = fused(x)
    assert torch.allclose(output.feature, expected, atol=1e-6)
    output.feature.square().sum().backward()
    assert fused.gate.weight.grad.abs().sum() > 0 and fused.gate.bias.grad.abs().sum() > 0


def test_the_soft_gate_gets_a_gradient_and_starts_undecided():
    fused = fusion("soft").train()
    output = fused(embeddings())
    assert torch.allclose(output.weights, torch.full((6, 2), 0.5))
    output.feature[:, 0].sum().backward()
    assert fused.gate.weight.grad.abs().sum() > 0
    assert all(p.weight.grad.abs().sum() > 0 for p in fused.projections)


@pytest.mark.parametrize("kind", ["soft", "uniform"])
@pytest.mark.parametrize("width", [sum(DIMS), 32])
def test_an_untrained_fusion_that_is_wide_enough_has_the_cosines_of_concat(kind, width):
    x = embeddings()
    plain = F.normalize(fusion("concat")(x))
    fused = F.normalize(fusion(kind, width).train()(x).feature)
    assert torch.allclose(fused @ fused.T, plain @ plain.T, atol=1e-5)


def test_concat_is_the_unit_embeddings_side_by_side():
    fused = fusion("concat")
    result = fused(embeddings())
    assert result.shape == (6, fused.dim) == (6, sum(DIMS))
    assert torch.allclose(result[:, :5].norm(dim=1), torch.ones(6)) and not list(fused.parameters())


@pytest.mark.parametrize("kind", ["soft", "top1", "uniform"])
def test_the_scale_of_an_experts_embedding_does_not_matter(kind):
    fused = fusion(kind).eval() if kind == "uniform" else decided(kind).eval()
    a, b = embeddings()
    assert torch.allclose(fused([a, b]), fused([a, 100 * b]), atol=1e-5)


@pytest.mark.parametrize("kind", ["soft", "top1", "uniform"])
def test_fusion_in_training_and_evaluation(kind):
    fused = fusion(kind)
    output = fused.train()(embeddings())
    assert output.embedding.shape == (6, 32) and output.logits.shape == (6, 7) and output.weights.shape == (6, 2)
    fused.eval()
    assert fused(embeddings()).shape == (6, fused.dim)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_of_experts_is_the_fusion_of_its_experts(kind):
    experts = [expert(dim).eval() for dim in DIMS]
    mixture = MixtureOfExperts(experts, fusion(kind)).eval()
    result = mixture(pictures())
    assert result.shape == (4, mixture.dim)
    assert torch.allclose(result, mixture.fusion([e(pictures()) for e in experts]))


def test_a_teacher_says_its_embedding_and_its_logits():
    alone = expert(5).eval()
    mixture = MixtureOfExperts([expert(dim).eval() for dim in DIMS], fusion("soft")).eval()
    for teacher, neck in ((alone, alone.neck), (mixture, mixture.fusion.neck)):
        embedding, logits = teacher.teach(pictures())
        assert torch.equal(embedding, teacher(pictures())) and torch.equal(logits, neck.classifier(embedding))


def test_one_expert_alone_is_what_the_top1_gate_gives_where_it_chooses_that_one():
    gate, x = decided("top1").eval(), embeddings()
    chosen = gate.weights(x).argmax(1)
    assert set(chosen.tolist()) == {0, 1}
    alone = torch.stack([gate.alone(i, part) for i, part in enumerate(x)])
    assert torch.allclose(gate(x), alone[chosen, torch.arange(6)], atol=1e-6)


def test_routed_experts_give_each_picture_what_its_expert_alone_gives():
    experts, gate = [expert(dim).eval() for dim in DIMS], decided("top1").eval()
    routed = RoutedExperts(Router(expert(4).encoder, 2), experts, gate).eval()
    images = pictures()
    with torch.no_grad():
        scores = routed.router(images)
        routed.router.head.bias[0] -= (scores[:, 0] - scores[:, 1]).median() - 1e-6
        chosen = routed.router(images).argmax(1)
        assert set(chosen.tolist()) == {0, 1}
        alone = torch.stack([gate.alone(i, e(images)) for i, e in enumerate(experts)])
        assert torch.allclose(routed(images), alone[chosen, torch.arange(len(images))], atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):  # as profiling runs it where a study's precision is bf16
            assert torch.allclose(routed(images), alone[chosen, torch.arange(len(images))], atol=0.1)
        before = sum(p.numel() for p in routed.parameters())
        assert torch.allclose(deployed(routed)(images), alone[chosen, torch.arange(len(images))], atol=1e-5)
    assert routed.fusion.gate is None and sum(p.numel() for p in routed.parameters()) < before


@pytest.mark.parametrize("kind", ["embedder", *KINDS])
def test_a_deployed_model_is_smaller_and_says_the_same(kind):
    if kind == "embedder":
        model = expert(8, teacher_dim=5)
    else:
        model = MixtureOfExperts([expert(dim).eval() for dim in DIMS], fusion(kind))
    before = model.eval()(pictures())
    parameters = sum(p.numel() for p in model.parameters())
    small = deployed(model)
    assert torch.equal(small(pictures()), before) and not small.training
    left = sum(p.numel() for p in small.parameters())
    unused = {"embedder": 8 * 3 + 5 * 8 + 5, "concat": (5 + 9) * 3}.get(kind, (5 + 9) * 3 + 32 * 7)
    assert parameters - left == unused
    assert not [name for name, _ in small.named_parameters() if "classifier" in name or name == "projection.weight"]
