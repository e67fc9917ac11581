"""Image encoders by name, from open_clip, transformers (ALIGN) and timm, behind one small class.

    open_clip:ViT-B-16            the image tower of a CLIP model
    align:kakaobrain/align-base   the image tower of ALIGN (an EfficientNet-B7)
    timm:mobilenetv4_conv_small   any timm network

Every encoder takes uint8 pictures as they lie in the decoded store and does its own resizing and normalisation.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from reidlib.params import EncoderParams
from reidlib.towers import BUILDERS, MINIATURES, OptionsError
from reidlib.weights import WeightsError, how_to_get, weights_file


class Encoder(nn.Module):
    """A network from uint8 pictures to features.

    Attributes:
        dim: width of the features.
        size: (height, width) in pixels the network sees; other sizes are resized to it.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int], mean, std):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # faster convolutions, on CPU and GPU
        self.size = tuple(size)
        # kept with the weights: they may hang on a pretrained tag, which isn't named when a trained network is loaded
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(1, 3, 1, 1)))
        self.register_buffer("shift", -(torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1))
        with torch.no_grad():
            was_training = self.training
            self.dim = self.eval()(torch.zeros(1, 3, *self.size, dtype=torch.uint8)).shape[1]
            self.train(was_training)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> float [B, dim]. Raises TypeError where pictures are anything else."""
        if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise TypeError(_not_pictures(images))
        # one new array of floats and everything else in place: on a CPU, taking memory costs more than these sums
        if images.shape[-2:] == self.size:
            x = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        else:
            x = F.interpolate(images.float(), self.size, mode="bicubic", antialias=True).clamp_(0, 255)
            x = x.contiguous(memory_format=torch.channels_last)
        return self.network(torch.addcmul(self.shift, x, self.scale, out=x))

    def layers(self) -> dict[str, int]:
        """Layer number of each of the network's parameters, counted from the input, for decay and freezing.

        Raises ValueError where the network doesn't say which of its parameters make up a layer.
        """
        from timm.models import group_parameters

        matcher = getattr(self.network, "group_matcher", None)
        layers = group_parameters(self.network, matcher(coarse=False), reverse=True) if matcher else {}
        if max(layers.values(), default=0) == 0:
            raise ValueError(
                f"the layers of {type(self.network).__name__} can't be told apart, so it can have neither 'frozen' nor "
                "'layer_decay': set frozen to 0 (or 1) and layer_decay to 1 in its recipe, or choose another encoder"
            )
        return layers

    def freeze(self, share: float) -> None:
        """Stop training of the first `share` of the layers (0: none, 1: all)."""
        layers = self.layers() if 0 < share < 1 else {}
        first_trained = share * (max(layers.values(), default=0) + 1)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(layers.get(name, 0) >= first_trained)

    def train(self, mode: bool = True):
        """As in torch, but frozen batch norms stay as they are: their statistics would follow the training data."""
        super().train(mode)
        for module in self.network.modules():
            parameters = list(module.parameters(recurse=False))
            if isinstance(module, nn.BatchNorm2d) and parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self


def _not_pictures(images) -> str:
    """What was given in the place of pictures, what is wanted, and how to get there."""
    said = ["pictures are wanted as a tensor, uint8 [B, 3, H, W] from 0 to 255"]
    if not isinstance(images, torch.Tensor):
        from_pillow = "torchvision.transforms.functional.pil_to_tensor(x)"
        return f"{said[0]}; this is {type(images).__name__}; arrays: torch.from_numpy(x); Pillow's pictures: {from_pillow}"
    said.append(f"this is {str(images.dtype).removeprefix('torch.')} {list(images.shape)}")
    if images.is_floating_point():
        said.append("floats from 0 to 1, as of torchvision's ToTensor: (255 * x).round().to(torch.uint8), not normalised")
    elif images.dtype != torch.uint8:
        said.append("whole numbers from 0 to 255: x.to(torch.uint8)")
    if images.ndim == 3:
        said.append("one picture: x[None]")
    if images.shape[-1:] == (3,):
        said.append("channels last: x.movedim(-1, -3)")
    elif images.shape[-3:-2] == (1,):
        said.append("grey: x.expand(-1, 3, -1, -1)")
    return "; ".join(said)


def builder(params: EncoderParams) -> Callable:
    """What makes the network: `build` takes it from a table, so a unit that builds an encoder names it in its `uses`."""
    return (BUILDERS if params.miniature is None else MINIATURES)[params.name.partition(":")[0]]


def build(params: EncoderParams, size: tuple[int, int], weights_root: str | Path | None = None) -> Encoder:
    """The encoder that `params` names for pictures of `size` (h, w), with its pretrained weights if it names any.

    Raises WeightsError when the weights are not to be had, OptionsError where the network takes no such options. A miniature
    comes with random weights.
    """
    if params.miniature is not None:
        network = builder(params)(params, size, vocabulary=2)[1]
        mean = std = (0.5, 0.5, 0.5)
    else:
        file = weights_file(params, weights_root)
        try:
            network, mean, std = builder(params)(params, size, file)
        except OptionsError:
            raise
        except Exception as error:  # whatever a library says of a damaged file, a wrong one, a hub that is not there
            if params.weights is None:
                raise
            raise WeightsError(how_to_get(params, file, error)) from error
    return Encoder(network, size, params.mean or mean, params.std or std)
