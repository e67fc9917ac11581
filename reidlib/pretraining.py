"""Contrastive pretraining in miniature: what CLIP and ALIGN learnt from the web, learnt from captioned drawn pictures.

The networks are open_clip's and transformers' own classes, only small; their image towers become the experts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.data.store import gather
from reidlib.encoders import builder
from reidlib.params import EncoderParams, PretrainingParams
from reidlib.training import Batch

_START, _PAD = 1, 0


def tokenize(captions: list[str]) -> tuple[np.ndarray, int]:
    """Captions as word numbers int64 [N, L], and the size of the vocabulary.

    0 pads; 1 starts; the largest number ends a caption, as CLIP's text tower expects of its last word.
    """
    words = sorted({word for caption in captions for word in caption.split()})
    number = {word: i + 2 for i, word in enumerate(words)}
    end = len(words) + 2
    tokens = np.full((len(captions), 2 + max(len(c.split()) for c in captions)), _PAD, dtype=np.int64)
    for row, caption in zip(tokens, captions):
        ids = [_START, *(number[word] for word in caption.split()), end]
        row[: len(ids)] = ids
    return tokens, end + 1


class Pair(nn.Module):
    """An image tower and a text tower; forward gives unit features of both, [B, D] twice, and the logits' scale.

    tower: the former, as an Encoder's network.
    """

    def __init__(self, encoder: EncoderParams, size: tuple[int, int], vocabulary: int, length: int):
        super().__init__()
        text = "context_length" if encoder.name.startswith("open_clip") else "max_position_embeddings"
        config = {**encoder.miniature, "text": {**encoder.miniature["text"], text: length}}
        encoder = encoder.model_copy(update={"miniature": config})
        self.model, self.tower = builder(encoder)(encoder, size, vocabulary)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor):
        x = images.float() / 127.5 - 1
        if hasattr(self.model, "vision_model"):  # ALIGN's
            out = self.model(input_ids=tokens, pixel_values=x, attention_mask=(tokens != _PAD).long())
            return F.normalize(out.image_embeds), F.normalize(out.text_embeds), 1 / self.model.temperature
        return self.model(x, tokens)


def contrastive_loss(output, target=None) -> dict[str, torch.Tensor]:
    """Symmetric cross-entropy over the batch's pairs (Radford et al. 2021)."""
    from open_clip import ClipLoss  # here, for open_clip takes seconds to import and only pretraining needs it

    image, text, scale = output
    return {"contrastive": ClipLoss()(image.float(), text.float(), scale.float())}


@dataclass(frozen=True)
class CaptionBatches:
    """Shuffled batches of pictures uint8 [N, 3, h, w] (mirrored at random) and their tokens int [N, L]."""

    pixels: np.ndarray
    tokens: np.ndarray
    params: PretrainingParams

    def __len__(self) -> int:
        return len(self.pixels) // self.params.batch

    def epoch(self, epoch: int, device: torch.device) -> Iterator[Batch]:
        order = np.random.default_rng([self.params.seed, epoch]).permutation(len(self.pixels))
        for index in order[: len(self) * self.params.batch].reshape(len(self), -1):
            images = gather(self.pixels, index).to(device)
            yield (images, torch.from_numpy(self.tokens[index]).to(device)), None
