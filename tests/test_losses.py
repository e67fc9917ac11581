"""Losses against values computed by hand or by brute force."""

import math

import pytest
import torch
import torch.nn.functional as F

from reidlib.losses import (
    Target,
    balance_loss,
    distillation_loss,
    identity_loss,
    logit_distillation,
    moe_loss,
    reid_loss,
    triplet_loss,
)
from reidlib.losses.distillation import embedding, relational
from reidlib.models import Output
from reidlib.params import DistillationParams, Recipe

torch.set_num_threads(1)
RECIPE = Recipe(epochs=1, p=2, k=2, lr=0.1, triplet=0.5)
PID = torch.tensor([0, 0, 1, 1, 2, 2])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotation(dim, seed=1):
    return torch.linalg.qr(random(dim, dim, seed=seed))[0]


def output(seed=0):
    return Output(
        random(6, 4, seed=seed), random(6, 4, seed=seed + 1), random(6, 3, seed=seed + 2), random(6, 5, seed=seed + 3),
        torch.tensor([[0.75, 0.25]] * 6),
    )  # fmt: skip


def said(**of):
    return Output(None, **{"embedding": None, "logits": None} | of)


def target(seed=10):
    return Target(PID, random(6, 5, seed=seed), random(6, 3, seed=seed + 1))


def test_identity_loss_smooths_labels():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    plain = -math.log(0.7)
    assert identity_loss(logits, torch.tensor([0]), 0.0).item() == pytest.approx(plain, abs=1e-6)
    every = -(math.log(0.7) + math.log(0.2) + math.log(0.1)) / 3
    expected = 0.9 * plain + 0.1 * every
    assert identity_loss(logits, torch.tensor([0]), 0.1).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("margin", [0.3, 5.0, None])
def test_triplet_loss_takes_the_hardest_positive_and_negative(margin):
    feature = random(6, 4)
    distance = [[math.dist(a, b) for b in feature.tolist()] for a in feature.tolist()]
    losses = []
    for i in range(6):
        positive = max(distance[i][j] for j in range(6) if j != i and PID[j] == PID[i])
        negative = min(distance[i][j] for j in range(6) if PID[j] != PID[i])
        gap = positive - negative
        losses.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin))
    assert triplet_loss(feature, PID, margin).item() == pytest.approx(sum(losses) / 6, abs=1e-4)


def test_triplet_loss_of_identities_far_apart_is_zero():
    feature = 100.0 * torch.eye(3)[PID]
    assert triplet_loss(feature, PID, 0.3).item() == 0


@pytest.mark.parametrize("margin", [0.3, None])
def test_triplet_loss_has_finite_gradients_where_a_picture_is_repeated(margin):
    # an identity with fewer than k pictures repeats them, at distance zero
    feature = random(3, 4)[PID].requires_grad_()
    loss = triplet_loss(feature, PID, margin)
    loss.backward()
    assert loss.isfinite() and feature.grad.isfinite().all()


def test_balance_loss_is_zero_for_even_weights_and_known_for_uneven_ones():
    assert balance_loss(torch.full((8, 3), 1 / 3)).item() == pytest.approx(0, abs=1e-12)
    # balanced over the batch, though every picture chooses one expert
    assert balance_loss(torch.eye(2).repeat(4, 1)).item() == 0
    # mean weights 0.75, 0.25: variance 0.0625 by squared mean 0.25
    assert balance_loss(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).item() == pytest.approx(0.25)
    # all on one of E experts: E - 1
    assert balance_loss(F.one_hot(torch.zeros(4, dtype=torch.long), 3).float()).item() == pytest.approx(2)


def test_logit_distillation_is_t_squared_kl_of_softened_probabilities():
    student, teacher, t = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 4.0], [1.0, 3.0]]), 2.0
    expected = 0.0
    for s, q in zip(student.tolist(), teacher.tolist()):
        p_student = [math.exp(v / t) / sum(math.exp(u / t) for u in s) for v in s]
        p_teacher = [math.exp(v / t) / sum(math.exp(u / t) for u in q) for v in q]
        expected += sum(b * math.log(b / a) for a, b in zip(p_student, p_teacher)) / 2
    assert logit_distillation(student, teacher, t).item() == pytest.approx(t**2 * expected, abs=1e-5)
    assert logit_distillation(teacher + 7, teacher, t).item() == pytest.approx(0, abs=1e-6)
    assert logit_distillation(student, teacher, t) != logit_distillation(teacher, student, t)


def test_embedding_distillation_is_the_cosine_distance():
    teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    student = torch.tensor([[5.0, 0.0], [3.0, 0.0]])
    assert embedding(said(projected=student), Target(None, teacher), None).item() == pytest.approx(0.5)
    assert embedding(said(projected=-teacher), Target(None, teacher), None).item() == pytest.approx(2)


def test_relational_distillation_sees_neither_rotation_nor_scale_nor_width():
    teacher = random(6, 5)

    def difference(student, teacher=teacher):
        return relational(said(embedding=student), Target(None, teacher), None).item()

    assert difference(3 * teacher @ rotation(5)) == pytest.approx(0, abs=1e-10)
    assert difference(F.pad(teacher, (0, 4))) == pytest.approx(0, abs=1e-10)
    assert difference(random(6, 5, seed=3)) > 0.01
    # two pictures: cosine 1 for the student, 0 for the teacher, both off the diagonal
    same, apart = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert difference(same, apart) == pytest.approx(1)


def test_terms_come_weighted_and_those_of_no_weight_are_left_out():
    terms = reid_loss(output(), target(), RECIPE)
    assert terms["triplet"].item() == pytest.approx(0.5 * triplet_loss(output().feature, PID, 0.3).item())
    assert list(reid_loss(output(), target(), RECIPE.model_copy(update={"triplet": 0.0}))) == ["identity"]

    terms = moe_loss(output(), target(), RECIPE, balance=0.1)
    assert terms["balance"].item() == pytest.approx(0.1 * 0.25) and list(terms) == ["identity", "triplet", "balance"]

    kd = DistillationParams(teachers=[], temperature=3, terms={"relational": 0.5, "embedding": 0.0, "logit": 2.0})
    terms = distillation_loss(output(), target(), RECIPE, kd)
    assert list(terms) == ["identity", "triplet", "logit", "relational"]
    expected = 2 * logit_distillation(output().logits, target().logits, 3)
    assert terms["logit"].item() == pytest.approx(expected.item())


def test_distillation_compares_the_projected_embedding_with_the_teachers():
    kd = DistillationParams(teachers=[])
    kind = output()._replace(projected=2 * target().embedding)
    assert distillation_loss(kind, target(), RECIPE, kd)["embedding"].item() == pytest.approx(0, abs=1e-6)


def test_losses_are_computed_in_float32_whatever_comes():
    half = Output(*(None if x is None else x.bfloat16() for x in output()))
    terms = distillation_loss(half, target(), RECIPE, DistillationParams(teachers=[]))
    assert {t.dtype for t in terms.values()} == {torch.float32}
