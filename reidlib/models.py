"""The study's networks: an Embedder (expert or student) and the Mixture-of-Experts over frozen experts.

All of them map uint8 pictures [B, 3, H, W] to embeddings [B, D]; in training mode they return an Output instead, which
holds what the losses need.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from reidlib.encoders import Encoder


class Output(NamedTuple):
    """What a network says of B pictures in training mode."""

    feature: torch.Tensor  # [B, D] before BNNeck; the triplet loss acts here
    embedding: torch.Tensor  # [B, D] after BNNeck; retrieval uses this
    logits: torch.Tensor  # [B, identities]
    projected: torch.Tensor | None = None  # [B, D of the teacher]
    weights: torch.Tensor | None = None  # [B, experts] of the gate


class Neck(nn.Module):
    """BNNeck and identity classifier (Luo et al. 2019, "Bag of Tricks and a Strong Baseline for Deep Person Re-ID")."""

    def __init__(self, dim: int, identities: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)
        self.norm.bias.requires_grad_(False)  # a shift would spoil the cosine around the origin
        self.classifier = nn.Linear(dim, identities, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, feature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, D] -> embedding [B, D], logits [B, identities]."""
        embedding = self.norm(feature.float())
        return embedding, self.classifier(embedding)


class Embedder(nn.Module):
    """An encoder with BNNeck: an expert, or the student.

    Args:
        encoder: from `encoders.build`.
        identities: number of training identities.
        teacher_dim: width of the teacher's embedding; adds the projection that distillation compares with it.
    """

    def __init__(self, encoder: Encoder, identities: int, teacher_dim: int | None = None):
        super().__init__()
        self.encoder = encoder
        self.neck = Neck(encoder.dim, identities)
        self.projection = nn.Linear(encoder.dim, teacher_dim) if teacher_dim else None
        self.dim = encoder.dim

    def forward(self, images: torch.Tensor):
        """uint8 [B, 3, H, W] -> embedding [B, D], or an Output in training mode."""
        feature = self.encoder(images)
        if not self.training:
            return self.neck.norm(feature.float())
        embedding, logits = self.neck(feature)
        projected = self.projection(embedding) if self.projection is not None else None
        return Output(feature, embedding, logits, projected)

    def teach(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a student learns from, in evaluation mode: embedding [B, D], logits [B, identities]."""
        return self.neck(self.encoder(images))


class Fusion(nn.Module):
    """The gate: fuses the experts' embeddings into one.

    Each expert's unit embedding is projected to a common width; the gate weighs the projections per picture
    (Shazeer et al. 2017, "Outrageously Large Neural Networks"):

        z = sum_i w_i P_i x_i,    w = softmax(G [x_1, ..., x_E])

    kind: "soft" weighs all; "top1" keeps the largest weight alone; "uniform" has w_i = 1/E; "concat" has no parameter
    that is trained and returns the unit embeddings side by side.

    The projections start as slices of one orthogonal matrix: with width >= the sum of the experts' widths the untrained
    uniform fusion has exactly the cosines of "concat", so training starts from the plain ensemble and can only be
    blamed or praised for what it changes.
    """

    def __init__(self, dims: list[int], width: int, identities: int, kind: str = "soft"):
        super().__init__()
        if kind not in ("soft", "top1", "uniform", "concat"):
            raise ValueError(f"'{kind}' is no gate; there are soft, top1, uniform and concat")
        self.kind = kind
        self.dim = sum(dims) if kind == "concat" else width
        if kind == "concat":
            return
        self.projections = nn.ModuleList(nn.Linear(dim, width, bias=False) for dim in dims)
        whole = nn.init.orthogonal_(torch.empty(width, sum(dims)))
        for projection, part in zip(self.projections, whole.split(dims, dim=1)):
            projection.weight.data.copy_(part)
        self.gate = nn.Linear(sum(dims), len(dims)) if kind != "uniform" else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)  # starts undecided
            nn.init.zeros_(self.gate.bias)
        self.neck = Neck(width, identities)

    def weights(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        """The gate's weights [B, E] for the experts' embeddings, each [B, D_i]; rows sum to 1."""
        experts, n = len(embeddings), len(embeddings[0])
        if self.kind in ("uniform", "concat"):
            return embeddings[0].new_full((n, experts), 1 / experts)
        soft = self.soft_weights(embeddings)
        if self.kind == "soft":
            return soft
        chosen = F.one_hot(soft.argmax(1), experts).to(soft.dtype)
        return chosen + (soft - soft.detach())  # forward: one expert; backward: the soft weights' gradient

    def soft_weights(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        """The gate's softmax [B, E], before the top-1 gate makes its choice of it."""
        return self.gate(torch.cat([F.normalize(x) for x in embeddings], dim=1) * self._scale(embeddings)).softmax(1)

    def alone(self, expert: int, embeddings: torch.Tensor) -> torch.Tensor:
        """One expert's embeddings [B, D_i] as the fused embedding [B, width] where that expert is chosen."""
        return self.neck.norm(self.projections[expert](F.normalize(embeddings)))

    def forward(self, embeddings: list[torch.Tensor]):
        """Experts' embeddings, each [B, D_i] -> fused embedding [B, width], or an Output in training mode."""
        unit = [F.normalize(x) for x in embeddings]
        if self.kind == "concat":
            return torch.cat(unit, dim=1)
        weights = self.weights(embeddings)
        projected = torch.stack([P(x) for P, x in zip(self.projections, unit)], dim=1)  # [B, E, width]
        feature = (weights.unsqueeze(2) * projected).sum(1)
        if not self.training:
            return self.neck.norm(feature)
        embedding, logits = self.neck(feature)
        return Output(feature, embedding, logits, weights=weights)

    @staticmethod
    def _scale(embeddings: list[torch.Tensor]) -> float:
        # unit vectors have entries of about 1/sqrt(D): bring the gate's input to about 1
        return (sum(x.shape[1] for x in embeddings) / len(embeddings)) ** 0.5


class MixtureOfExperts(nn.Module):
    """Frozen experts under a Fusion: what the paper calls the ensemble, and the student's teacher."""

    def __init__(self, experts: list[Embedder], fusion: Fusion):
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.fusion = fusion
        self.dim = fusion.dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> embedding [B, D]."""
        return self.fusion([expert(images) for expert in self.experts])

    def teach(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a student learns from, in evaluation mode: embedding [B, D], logits [B, identities]."""
        embedding = self(images)
        return embedding, self.fusion.neck.classifier(embedding)


class Router(nn.Module):
    """Looks at a picture before the experts do and says which of them should: a small encoder and a linear head."""

    def __init__(self, encoder: Encoder, experts: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.dim, experts)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> scores [B, experts]; the highest is chosen."""
        return self.head(self.encoder(images).float())


class RoutedExperts(nn.Module):
    """Frozen experts behind a Router: only the chosen one runs on a picture, which is where the time is saved.

    fusion: of kind "top1"; its gate, which would want all experts' embeddings, is not used.
    """

    def __init__(self, router: Router, experts: list[Embedder], fusion: Fusion):
        super().__init__()
        self.router = router
        self.experts = nn.ModuleList(experts)
        self.fusion = fusion
        self.dim = fusion.dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> embedding [B, D]."""
        choice = self.router(images).argmax(1)
        out = torch.empty(len(images), self.dim, device=images.device)
        for i, expert in enumerate(self.experts):
            chosen = (choice == i).nonzero().squeeze(1)
            if len(chosen):
                out[chosen] = self.fusion.alone(i, expert(images[chosen]))
        return out


def deployed(model: nn.Module) -> nn.Module:
    """`model` itself, in evaluation mode, rid of what only training needs (classifiers, the student's projection)."""
    model = model.eval()
    for module in model.modules():
        if isinstance(module, Neck):
            module.classifier = None
        if isinstance(module, Embedder):
            module.projection = None
        if isinstance(module, RoutedExperts):
            module.fusion.gate = None
    return model
