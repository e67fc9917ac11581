"""Pretrained weights: where they are, what they are, and what of a file fits a network.

A file is one of a library's, or of a network that was trained for re-identification: reidlib's own weights.safetensors,
torchreid's or fast-reid's checkpoint.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from reidlib.content import digest
from reidlib.data.dataset import first_five
from reidlib.data.hashes import file_hashes
from reidlib.params import EncoderParams

WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".pth.tar")


class WeightsError(RuntimeError):
    """Pretrained weights that can't be had; the message says what, where it was looked for and how to get it."""


def weights_file(params: EncoderParams, weights_root: str | Path | None) -> Path | None:
    """The local file of pretrained weights; None if `weights` is null or a tag to be downloaded.

    Raises WeightsError where the file isn't there, and where a tag is named that the library would not look at.
    """
    if params.weights is None or not params.weights.endswith(WEIGHT_FILES):
        if params.source != "open_clip" and params.weights not in (None, "hub"):
            tag = "; a tag of timm's is part of the name: timm:resnet50.a3_in1k" if params.source == "timm" else ""
            raise WeightsError(f"weights '{params.weights}' of {params.name} are neither 'hub', the model hub's, nor a file that ends "
                               f"in {', '.join(WEIGHT_FILES)}{tag}")  # fmt: skip
        return None
    file = Path(weights_root or ".") / params.weights
    if not file.is_file():
        raise WeightsError(how_to_get(params, file, "no such file"))
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
        raise WeightsError(how_to_get(params, None, f"{repository or 'none known there'} is not in the cache"))
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


def how_to_get(params: EncoderParams, file: Path | None, error) -> str:
    """The message of what keeps weights from being had, and of what to do."""
    said = " ".join(str(error).split("\n")[:2]).strip()[:300] or type(error).__name__
    if file is not None and file.is_file():
        named = f"weights '{params.weights}' of {params.name}: {file.resolve()}"
        if isinstance(error, WeightsError):
            return f"{named} {error}"
        return f"{named} can't be used ({said}); name the encoder and the size that it was trained with, or fetch it again"
    if file is not None:
        looked = f"{file.resolve()} ({said}). Put the file there, or set REIDLIB_WEIGHTS to the folder that holds it"
    else:
        looked = (
            f"the local model cache and the model hub ({said}). Run once on a machine with a network so that the cache "
            "holds them, or name a local file in the encoder's 'weights'"
        )
    return f"no weights '{params.weights}' of {params.name}: looked for in {looked}; 'weights: null' is random"


# numbers beside the tensors, such as the rank-1 in torchreid's checkpoints: reading them runs nothing
_SCALAR = np._core.multiarray.scalar
_NUMBERS = [
    *(_SCALAR, (_SCALAR, "numpy.core.multiarray.scalar"), np.dtype),
    *(type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")),
]


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a weight file by name, as they are called there; no code that it may hold is run.

    Raises WeightsError, whose message goes on from the file's name, where it is no file of tensors.
    """
    with open(file, "rb") as opened:
        start = opened.read(100)
    if not start:
        raise WeightsError("is empty: fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError("is a Git LFS pointer in the file's place: run 'git lfs pull' there, or fetch the file itself")
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            with torch.serialization.safe_globals(_NUMBERS):
                state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format and each kind of damage has its own
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise WeightsError(
                f"holds more than tensors: reading it would run {code[1]}, which is refused; if you trust it, load it "
                "elsewhere and save its tensors alone (safetensors.torch.save_file)"
            ) from error
        raise WeightsError(
            f"is damaged, cut off or no file of tensors ({str(error).strip().partition(chr(10))[0]}): "
            "fetch it again, or save its tensors as .safetensors"
        ) from error
    for nested in ("state_dict_ema", "model_ema", "state_dict", "model"):  # averaged weights first, as timm has it
        if isinstance(state, Mapping) and isinstance(state.get(nested), Mapping):
            state = state[nested]
    if not isinstance(state, Mapping):
        raise WeightsError(f"holds a {type(state).__name__}, no tensors by name: save the network's state_dict")
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def fitting(network: nn.Module, state: Mapping[str, torch.Tensor], title: str) -> dict[str, torch.Tensor]:
    """A whole state dict of `network` with what of a file's is its own, whatever stands before the names there.

    Says in one line what of the file is left out (text towers, classifiers) and what the network keeps as it was built.
    Raises WeightsError where that is more than a twentieth of the network, or where the file's own network is larger.
    """
    own, prefixes = network.state_dict(), Counter()
    for name in state:
        parts = name.split(".")
        prefixes.update(".".join([*parts[:i], ""]) for i in range(len(parts)) if ".".join(parts[i:]) in own)
    prefix = max(prefixes, key=prefixes.get, default="")  # module., backbone., visual., encoder.network. ...
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    found = {name: inside[name] for name in own if name in inside}
    kept, left = [name for name in own if name not in found], sorted(state.keys() - {prefix + name for name in found})
    parts = {name.partition(".")[0] for name in own}
    deeper = [name for name in inside if name not in own and name.partition(".")[0] in parts]
    most = sum(value.numel() for value in own.values()) / 20
    if sum(own[name].numel() for name in kept) > most:
        raise WeightsError(
            f"is another network's: {type(network).__name__} also has {first_five(kept)}, which it lacks; what it has besides: "
            f"{first_five(left) or 'nothing'}. Name the encoder that it was trained with"
        )
    if sum(inside[name].numel() for name in deeper) > most:
        raise WeightsError(f"is a larger network's, with {first_five(deeper)}; name the encoder that it was trained with")
    if left or kept:
        print(f"{title}: leaves out {first_five(left) or 'nothing'}; lacks {first_five(kept) or 'nothing'}")
    return own | found
