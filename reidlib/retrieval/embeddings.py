"""Embeddings with the identities and cameras of their pictures."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class EmbeddingSet:
    """Embeddings with their identities and cameras.

    features: [N, D], torch or numpy, of any real type; kept as a float32 tensor on the device it came from.
    pid, camid: int [N] (array, tensor, Series or list), kept as int64 arrays. pid -1 marks junk.
    Raises ValueError or TypeError naming the field that is wrong.
    """

    features: torch.Tensor
    pid: np.ndarray
    camid: np.ndarray

    def __post_init__(self):
        features = self.features if isinstance(self.features, torch.Tensor) else np.asarray(self.features)
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(f"features: expected shape [N, D] with N, D > 0, got {list(features.shape)}")
        if isinstance(features, np.ndarray):
            if features.dtype.kind not in "fiu":
                raise TypeError(f"features: expected real numbers, got {features.dtype}")
            with np.errstate(over="ignore"):  # what overflows is reported below
                features = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))
        elif features.is_complex():
            raise TypeError(f"features: expected real numbers, got {features.dtype}")
        features = features.detach().to(torch.float32).contiguous()
        # No sum with NaN or infinity in it is finite; the few others that are not are sums of very large numbers.
        suspect = (~torch.isfinite(features.sum(dim=1))).nonzero()[:, 0]
        wrong = suspect[~torch.isfinite(features[suspect]).all(dim=1)]
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"features: row {row} of {len(features)} holds NaN or a value beyond float32's range")
        object.__setattr__(self, "features", features)
        for name in ("pid", "camid"):
            object.__setattr__(self, name, _labels(getattr(self, name), name, len(features)))

    def __len__(self) -> int:
        return len(self.pid)


def _labels(values, name: str, n: int) -> np.ndarray:
    labels = as_array(values)
    if labels.shape != (n,):
        raise ValueError(f"{name}: expected shape [{n}], one for each row of features, got {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {labels.dtype}")
    return labels.astype(np.int64)


def as_array(values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)
