"""The study's networks: an Embedder (expert or student), the Mixture-of-Experts over frozen experts, the Router.

All of them map uint8 pictures [B, 3, H, W] to embeddings [B, D]; in training mode they return an Output instead, which
holds what the losses need.
"""

import torch
from torch import nn

from reidlib.encoders import Encoder
from reidlib.gates import Fusion
from reidlib.neck import Neck, Output


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
                out[chosen] = self.fusion.alone(i, expert(images[chosen])).to(out.dtype)  # autocast's is another
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
