"""What a network gives in training, and the neck between features and identities."""

from typing import NamedTuple

import torch
from torch import nn


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
