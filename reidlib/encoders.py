"""Image encoders by name, from open_clip, transformers (ALIGN) and timm, behind one small class.

    open_clip:ViT-B-16            the image tower of a CLIP model
    align:kakaobrain/align-base   the image tower of ALIGN (an EfficientNet-B7)
    timm:mobilenetv4_conv_small   any timm network

Every encoder takes uint8 pictures as they lie in the decoded store and does its own resizing and normalisation.
The three are imported where a network of theirs is built, not above: they take seconds, and not every notebook builds one.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.content import digest
from reidlib.data.hashes import file_hashes
from reidlib.params import EncoderParams

WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth")


class WeightsError(RuntimeError):
    """Pretrained weights that can't be had; the message says what, where it was looked for and how to get it."""


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
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(1, 3, 1, 1)), persistent=False)
        self.register_buffer("shift", -(torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1), persistent=False)
        with torch.no_grad():
            was_training = self.training
            self.dim = self.eval()(torch.zeros(1, 3, *self.size, dtype=torch.uint8)).shape[1]
            self.train(was_training)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> float [B, dim]."""
        # one new array of floats and everything else in place: on a CPU, taking memory costs more than these sums
        if images.shape[-2:] == self.size:
            x = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
        else:
            x = F.interpolate(images.float(), self.size, mode="bicubic", antialias=True).clamp_(0, 255)
            x = x.contiguous(memory_format=torch.channels_last)
        return self.network(torch.addcmul(self.shift, x, self.scale, out=x))

    def layers(self) -> dict[str, int]:
        """Layer number of each of the network's parameters, counted from the input, for decay and freezing."""
        from timm.models import group_parameters

        return group_parameters(self.network, self.network.group_matcher(coarse=False), reverse=True)

    def freeze(self, share: float) -> None:
        """Stop training of the first `share` of the layers (0: none, 1: all)."""
        layers = self.layers()
        first_trained = share * (max(layers.values()) + 1)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(layers[name] >= first_trained)

    def train(self, mode: bool = True):
        """As in torch, but frozen batch norms stay as they are: their statistics would follow the training data."""
        super().train(mode)
        for module in self.network.modules():
            parameters = list(module.parameters(recurse=False))
            if isinstance(module, nn.BatchNorm2d) and parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self


class AlignTower(nn.Module):
    """transformers' ALIGN image tower, returning its pooled features [B, D] alone."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower
        for module in tower.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # the configuration's 0.99 is TensorFlow's; torch would keep the last batch alone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tower(pixel_values=x).pooler_output.flatten(1)

    def group_matcher(self, coarse: bool = False) -> dict:
        return {"stem": r"^tower\.embeddings", "blocks": [(r"^tower\.encoder\.blocks\.(\d+)", None)]}


def _vit_group_matcher(coarse: bool = False) -> dict:
    return {
        "stem": r"^(?:conv1|class_embedding|positional_embedding|ln_pre)",
        "blocks": [(r"^transformer\.resblocks\.(\d+)", None), (r"^(?:ln_post|proj)", (99999,))],
    }


def _resnet_group_matcher(coarse: bool = False) -> dict:
    return {"stem": r"^(?:conv|bn)", "blocks": [(r"^layer(\d+)", None), (r"^attnpool", (99999,))]}


def build(params: EncoderParams, size: tuple[int, int], weights_root: str | Path | None = None) -> Encoder:
    """The encoder that `params` names for pictures of `size` (h, w), with its pretrained weights if it names any.

    Raises WeightsError when the weights are not to be had. A miniature comes with random weights.
    """
    source, _, name = params.name.partition(":")
    if params.miniature is not None:
        network = image_tower(miniature(params, size, vocabulary=2))
        mean = std = (0.5, 0.5, 0.5)
    else:
        file = weights_file(params, weights_root)
        builder = {"open_clip": _open_clip, "align": _align, "timm": _timm}[source]
        try:
            network, mean, std = builder(name, params, size, file)
        except Exception as error:  # whatever a library says of a damaged file, a wrong one, a hub that is not there
            if params.weights is None:
                raise
            raise WeightsError(_how_to_get(params, file, error)) from error
    return Encoder(network, size, params.mean or mean, params.std or std)


def weights_file(params: EncoderParams, weights_root: str | Path | None) -> Path | None:
    """The local file of pretrained weights; None if `weights` is null or a tag to be downloaded."""
    if params.weights is None or not params.weights.endswith(WEIGHT_FILES):
        return None
    file = Path(weights_root or ".") / params.weights
    if not file.is_file():
        raise WeightsError(_how_to_get(params, file, "no such file"))
    return file


def weights_identity(params: EncoderParams, weights_root: str | Path | None, cache: Path | None = None) -> str | None:
    """What the pretrained weights are: the sha256 of a file, a hash of a folder's, of a tag the repository and revision.

    None where there are none. cache: see `data.hashes.file_hashes`. Raises WeightsError where they aren't on this machine.
    """
    if file := weights_file(params, weights_root):
        return file_hashes([file], cache)[0]
    if params.weights is None:
        return None
    repository = _hub_repository(params)
    if params.name.startswith("align:") and Path(repository).is_dir():  # it takes one in a repository's place
        return digest(file_hashes(sorted(file for file in Path(repository).rglob("*") if file.is_file()), cache))
    from huggingface_hub import constants

    reference = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "refs" / "main"
    if not repository or not reference.is_file():
        raise WeightsError(_how_to_get(params, None, f"{repository or 'none known there'} is not in the cache"))
    return f"{repository}@{reference.read_text().strip()}"


def _hub_repository(params: EncoderParams) -> str:
    """Where the library gets a tag's weights from: owner/name on the model hub; "" where it has them from nowhere."""
    source, _, name = params.name.partition(":")
    if source == "open_clip":
        import open_clip

        return open_clip.get_pretrained_cfg(name, params.weights).get("hf_hub", "").rpartition("/")[0]
    if source == "timm":
        import timm

        known = timm.get_pretrained_cfg(name)
        return (known and known.hf_hub_id) or ""
    return name


def _how_to_get(params: EncoderParams, file: Path | None, error) -> str:
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if file is not None and file.is_file():
        return f"weights '{params.weights}' of {params.name}: {file.resolve()} can't be used ({said}); fetch the file again"
    if file is not None:
        looked = f"{file.resolve()} ({said}). Put the file there, or set REIDLIB_WEIGHTS to the folder that holds it"
    else:
        looked = (
            f"the local model cache and the model hub ({said}). Run once on a machine with a network so that the cache "
            "holds them, or name a local file in the encoder's 'weights'"
        )
    return f"no weights '{params.weights}' of {params.name}: looked for in {looked}; 'weights: null' is random"


def _open_clip(name: str, params: EncoderParams, size: tuple[int, int], file: Path | None):
    import open_clip
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    # open_clip takes a tag or a path; force_image_size resamples the position embedding to the size asked for
    model = open_clip.create_model(
        name,
        pretrained=str(file) if file else params.weights,
        force_image_size=tuple(size),
        pretrained_text=False,
        require_pretrained=params.weights is not None,
    )
    return image_tower(model), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD


def _align(name: str, params: EncoderParams, size: tuple[int, int], file: Path | None):
    from timm.models import load_state_dict
    from transformers import AlignModel, AlignVisionConfig, AlignVisionModel

    # pixel values from -1 to 1, as ALIGN was trained; the tower is convolutional, so any size goes
    if file is not None:
        tower = AlignVisionModel(AlignVisionConfig(hidden_dim=640))
        state = load_state_dict(str(file))
        # the file holds the tower alone, or the whole model
        tower_state = {k.removeprefix("vision_model."): v for k, v in state.items() if k.startswith("vision_model.")}
        tower.load_state_dict(tower_state or state)
    elif params.weights is not None:
        tower = AlignModel.from_pretrained(name, dtype=torch.float32).vision_model
    else:
        tower = AlignVisionModel(AlignVisionConfig(hidden_dim=640))
    return AlignTower(tower), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _timm(name: str, params: EncoderParams, size: tuple[int, int], file: Path | None):
    import timm

    # networks with a position embedding are made for one size; timm resamples the weights to it
    default = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    fixed = {"img_size": tuple(size)} if default.fixed_input_size else {}
    if name.startswith(("vit_", "eva")):  # these take further sizes, those of a recipe's stages
        fixed["dynamic_img_size"] = True
    overlay = None
    if file is not None:  # with its classifier or without
        state = timm.models.load_state_dict(str(file))
        heads = tuple(f"{head}." for head in np.atleast_1d(default.classifier or ()))
        overlay = {"state_dict": {k: v for k, v in state.items() if not k.startswith(heads)}, "num_classes": 0}
    network = timm.create_model(
        name, pretrained=params.weights is not None, pretrained_cfg_overlay=overlay, num_classes=0, **fixed
    )
    network.pretrained_cfg.pop("state_dict", None)
    return network, network.pretrained_cfg["mean"], network.pretrained_cfg["std"]


def miniature(params: EncoderParams, size: tuple[int, int], vocabulary: int) -> nn.Module:
    """A small image-and-text model of open_clip's own CLIP class, or of transformers' own ALIGN class.

    `params.miniature` holds the keys of open_clip's vision and text configurations (vision, text, embed_dim), or of
    transformers' AlignVisionConfig and AlignTextConfig (vision, text).
    """
    source = params.name.partition(":")[0]
    config = params.miniature
    if source == "open_clip":
        import open_clip

        _check_keys(params.name, config["vision"], open_clip.CLIPVisionCfg.__dataclass_fields__)
        _check_keys(params.name, config["text"], open_clip.CLIPTextCfg.__dataclass_fields__)
        # CLIP's ResNet takes a whole number, its ViT also a pair
        vision = open_clip.CLIPVisionCfg(**config["vision"], image_size=size[0] if size[0] == size[1] else tuple(size))
        text = open_clip.CLIPTextCfg(**config["text"], vocab_size=vocabulary)
        return open_clip.CLIP(config["embed_dim"], vision, text)
    if source == "align":
        from transformers import AlignConfig, AlignModel, AlignTextConfig, AlignVisionConfig, AlignVisionModel

        _check_keys(params.name, config["vision"], AlignVisionConfig().to_dict())
        _check_keys(params.name, config["text"], AlignTextConfig().to_dict())
        vision = AlignVisionConfig(**{"batch_norm_momentum": 0.1, **config["vision"]}, image_size=max(size))
        # the image features are the last stage's channels: the projection of the text must have their width
        vision.hidden_dim = AlignVisionModel(vision).encoder.blocks[-1].projection.project_conv.out_channels
        text = {**config["text"], "vocab_size": vocabulary}
        model = AlignModel(
            AlignConfig(
                text_config=text,
                vision_config=vision.to_dict(),
                projection_dim=vision.hidden_dim,
                temperature_init_value=0.07,  # CLIP's; the class's 1.0 is one for loading weights
            )
        )
        for module in model.vision_model.modules():
            if isinstance(module, nn.Conv2d):  # EfficientNet's own start; the class's is one for loading weights
                fan_out = module.out_channels * module.kernel_size[0] ** 2 // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        return model
    raise ValueError(f"{params.name}: only open_clip and align encoders have a miniature")


def _check_keys(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    for key in set(given) - set(known):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
        raise ValueError(f"{name}: its miniature has an unknown key '{key}'; did you mean '{near}'?")


def image_tower(model: nn.Module) -> nn.Module:
    """The image half of a CLIP or ALIGN model, fit to be an Encoder's network."""
    if hasattr(model, "vision_model"):  # ALIGN's
        return AlignTower(model.vision_model)
    is_vit = hasattr(model.visual, "transformer")
    model.visual.group_matcher = _vit_group_matcher if is_vit else _resnet_group_matcher
    return model.visual
