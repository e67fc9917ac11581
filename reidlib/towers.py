"""The networks behind encoders: image towers of open_clip, transformers (ALIGN) and timm, and small ones of the same classes.

The libraries are imported where a network of theirs is built, not above: they take seconds, and not every notebook builds one.
"""

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from reidlib.params import EncoderParams
from reidlib.weights import WeightsError, fitting, read_weights

# open_clip


def _open_clip(params: EncoderParams, size: tuple[int, int], file: Path | None):
    import open_clip
    from open_clip.convert import convert_state_dict

    name = params.name.partition(":")[2]
    config = open_clip.get_model_config(name)
    is_resnet = config is not None and isinstance(config["vision_cfg"].get("layers"), list)  # made for squares alone
    model = open_clip.create_model(
        name,
        pretrained=None if file else params.weights,
        force_image_size=None if is_resnet else tuple(size),  # a tag's position embedding is resampled to it
        pretrained_text=False,
        require_pretrained=file is None and params.weights is not None,
        weights_only=True,
        device=torch.get_default_device(),  # else a network that is built on "meta" is moved to the CPU
    )
    tower = _clip_tower(model, size)
    if file is not None:
        state = fitting(tower, convert_state_dict(model, read_weights(file)), f"{params.name} from {params.weights}")
        tower.load_state_dict(_resampled(state, tower))
    # what a tag says its weights were trained with; without one, what all of the model's tags say
    tags = [params.weights] if params.weights and file is None else open_clip.list_pretrained_tags_by_model(name)
    known = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    said = {(tuple(config["mean"]), tuple(config["std"])) for config in known if "mean" in config}
    own = open_clip.get_model_preprocess_cfg(model)
    return tower, *(said.pop() if len(said) == 1 else (own["mean"], own["std"]))


def _clip_tower(model: nn.Module, size: tuple[int, int]) -> nn.Module:
    """The image half of a CLIP model, fit to be an Encoder's network for pictures of `size`."""
    from timm.layers import resample_abs_pos_embed

    tower = model.visual
    if hasattr(tower, "trunk"):  # a timm network
        tower.group_matcher = _trunk_group_matcher(tower.trunk)
    elif hasattr(tower, "attnpool"):
        tower.group_matcher = _resnet_group_matcher
        tower.grid_size = tuple((side + 1) // 2 // 16 for side in size)  # what the convolutions leave of a picture
        positions = tower.attnpool.positional_embedding.detach()[None]
        positions = resample_abs_pos_embed(positions, tower.grid_size, num_prefix_tokens=1)[0]
        tower.attnpool.positional_embedding = nn.Parameter(positions)
    else:
        tower.group_matcher = _vit_group_matcher
        tower.output_tokens = False  # CoCa's come beside the features
    return tower


def _resampled(state: dict, tower: nn.Module) -> dict:
    """The state dict with its position embedding, where that is of another (square) size, resampled to the tower's."""
    from timm.layers import resample_abs_pos_embed

    for name, own in tower.state_dict().items():
        if name.endswith(("positional_embedding", "pos_embed")) and state[name].shape != own.shape:
            grid = tower.trunk.patch_embed.grid_size if hasattr(tower, "trunk") else tower.grid_size
            others = own.shape[-2] - grid[0] * grid[1]  # tokens that are no patches: the class's
            positions = state[name].view(1, *state[name].shape[-2:])
            state[name] = resample_abs_pos_embed(positions, grid, num_prefix_tokens=others).view_as(own)
    return state


def _vit_group_matcher(coarse: bool = False) -> dict:
    return {
        "stem": r"^(?:conv1|class_embedding|positional_embedding|ln_pre)",
        "blocks": [(r"^transformer\.resblocks\.(\d+)", None), (r"^(?:attn_pool|ln_post|proj)", (99999,))],
    }


def _resnet_group_matcher(coarse: bool = False) -> dict:
    return {"stem": r"^(?:conv|bn)", "blocks": r"^layer(\d+)\.(\d+)"}  # what nothing matches, attnpool, is last


def _trunk_group_matcher(trunk: nn.Module) -> Callable:
    """timm's numbers for a network that open_clip has as its `trunk`."""
    from timm.models import group_parameters

    matcher = getattr(trunk, "group_matcher", None)
    layers = group_parameters(trunk, matcher(coarse=False), reverse=True) if matcher else {}
    last = max(layers.values(), default=-1) + 1  # what open_clip puts on top of it
    return lambda coarse=False: lambda name: layers.get(name.removeprefix("trunk."), last)


def _small_clip(params: EncoderParams, size: tuple[int, int], vocabulary: int) -> tuple[nn.Module, nn.Module]:
    import open_clip

    config = params.miniature
    _check_keys(params.name, config["vision"], open_clip.CLIPVisionCfg.__dataclass_fields__)
    _check_keys(params.name, config["text"], open_clip.CLIPTextCfg.__dataclass_fields__)
    # CLIP's ResNet is made for a square, its ViT also for a pair
    is_resnet = isinstance(config["vision"].get("layers"), list)
    vision = open_clip.CLIPVisionCfg(**config["vision"], image_size=max(size) if is_resnet else tuple(size))
    text = open_clip.CLIPTextCfg(**config["text"], vocab_size=vocabulary)
    model = open_clip.CLIP(config["embed_dim"], vision, text)
    return model, _clip_tower(model, size)


# ALIGN


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


def _align(params: EncoderParams, size: tuple[int, int], file: Path | None):
    from transformers import AlignModel, AlignVisionConfig, AlignVisionModel

    # pixel values from -1 to 1, as ALIGN was trained; the tower is convolutional, so any size goes
    if params.weights is not None and file is None:
        name = params.name.partition(":")[2]
        tower = AlignModel.from_pretrained(name, dtype=torch.float32, weights_only=True).vision_model
    else:
        tower = AlignVisionModel(AlignVisionConfig(hidden_dim=640))
    if file is not None:  # of the tower alone, or of the whole model
        tower.load_state_dict(fitting(tower, read_weights(file), f"{params.name} from {params.weights}"))
    return AlignTower(tower), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _small_align(params: EncoderParams, size: tuple[int, int], vocabulary: int) -> tuple[nn.Module, nn.Module]:
    from transformers import AlignConfig, AlignModel, AlignTextConfig, AlignVisionConfig, AlignVisionModel

    config = params.miniature
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
    return model, AlignTower(model.vision_model)


def _check_keys(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    for key in set(given) - set(known):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
        raise ValueError(f"{name}: its miniature has an unknown key '{key}'; did you mean '{near}'?")


# timm


class OptionsError(ValueError):
    """Options of an encoder that timm's network does not take."""


def _timm(params: EncoderParams, size: tuple[int, int], file: Path | None):
    import timm

    name = params.name.partition(":")[2]
    # networks with a position embedding are made for one size; timm resamples the weights to it
    default = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    fixed = {"img_size": tuple(size)} if default.fixed_input_size else {}
    fixed |= params.options
    if name.startswith(("vit_", "eva")):  # these take further sizes, those of a recipe's stages
        fixed["dynamic_img_size"] = True
    # a file's weights take the place of what is drawn here, so that nothing seems to have been
    with torch.random.fork_rng(devices=[], enabled=file is not None):
        try:
            network = timm.create_model(
                name, pretrained=params.weights is not None and file is None, num_classes=0, **fixed
            )
        except TypeError as error:
            raise OptionsError(f"{params.name}: its options {params.options} don't suit it ({error})") from error
    if file is not None:
        state = read_weights(file)
        heads = tuple(f"{head}." for head in np.atleast_1d(default.classifier or ()))  # whatever its size
        state = {name: value for name, value in state.items() if not name.startswith(heads)}

        def loaded(state: dict) -> nn.Module:
            overlay = {"state_dict": state, "num_classes": 0}
            return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **fixed)

        try:
            network = loaded(fitting(network, state, f"{params.name} from {params.weights}"))
        except WeightsError as unfit:
            try:
                network = loaded(state)  # by other names: its authors', which timm may know
            except Exception:
                raise unfit from None
        network.pretrained_cfg.pop("state_dict")
    return network, network.pretrained_cfg["mean"], network.pretrained_cfg["std"]


BUILDERS = {"open_clip": _open_clip, "align": _align, "timm": _timm}  # (params, size, file) -> network, mean, std
# (params, size, vocabulary) -> a small model of image and text, and its image tower, fit to be an Encoder's network.
# Its configuration's keys are those of open_clip's CLIPVisionCfg and CLIPTextCfg (vision, text, embed_dim), or of
# transformers' AlignVisionConfig and AlignTextConfig (vision, text).
MINIATURES = {"open_clip": _small_clip, "align": _small_align}
