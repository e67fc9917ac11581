"""Encoders: every source gives what its name says, sees what it should, and numbers its layers from the input."""

import subprocess
import sys

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import load_model, save_file, save_model
from torch import nn
from transformers import AlignConfig, AlignModel, AlignTextConfig, AlignVisionConfig

from reidlib.encoders import Encoder, build, builder
from reidlib.losses import Target, reid_loss
from reidlib.models import Embedder
from reidlib.params import EncoderParams, Recipe
from reidlib.towers import OptionsError
from reidlib.training import Machine, embed, parameter_groups, train
from reidlib.weights import WeightsError

torch.set_num_threads(1)
SIZE = (32, 48)
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
CLIP = EncoderParams(
    name="open_clip:miniature",
    size=SIZE,
    miniature={
        "embed_dim": 24,
        "vision": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
        "text": {"layers": 1, "width": 16, "heads": 2},
    },
)
ALIGN = EncoderParams(
    name="align:miniature",
    size=SIZE,
    miniature={"vision": {"width_coefficient": 0.1, "depth_coefficient": 0.1}, "text": TEXT},
)
VIT = EncoderParams(name="timm:test_vit")
CNN = EncoderParams(name="timm:test_efficientnet")


def pictures(n=2, size=SIZE, seed=0):
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def halved(model):
    return {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}


def in_order(encoder):
    """The parameters of the network's modules as one picture meets them."""
    used = []
    for name, module in encoder.network.named_modules():
        own = [f"{name}.{parameter}".lstrip(".") for parameter, _ in module.named_parameters(recurse=False)]
        # of modules that hold others what they hold themselves has no moment
        if own and not list(module.children()):
            module.register_forward_pre_hook(lambda *_, own=own: used.extend(own))
    encoder(torch.zeros(1, 3, *encoder.size, dtype=torch.uint8))
    return used


class Seen(nn.Module):
    """A network that keeps what it is given."""

    def forward(self, x):
        self.input = x
        return x.mean((2, 3))


@pytest.mark.parametrize("params, dim", [(CLIP, 24), (ALIGN, 32), (VIT, 64), (CNN, 256)], ids=lambda x: str(x)[:20])
def test_encoders_give_features_of_their_dim_at_a_size_that_is_not_square(params, dim):
    encoder = build(params, SIZE)
    features = encoder(pictures())
    assert features.shape == (2, encoder.dim) and features.dtype == torch.float32
    assert encoder.dim == dim and encoder.size == SIZE
    assert encoder.training, "building must not leave the encoder in evaluation mode"


def test_a_picture_is_normalised_as_x_by_255_less_mean_by_std():
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.3, 0.4)
    encoder = Encoder(Seen(), SIZE, mean, std)
    encoder(pictures())
    expected = (pictures() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(encoder.network.input, expected, atol=1e-5)


@pytest.mark.parametrize(
    "params, mean, std",
    [
        (EncoderParams(name="open_clip:ViT-S-32-alt"), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
        (ALIGN, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (CNN, timm.get_pretrained_cfg("test_efficientnet").mean, timm.get_pretrained_cfg("test_efficientnet").std),
        (CNN.model_copy(update={"mean": (0, 0, 0), "std": (1, 1, 1)}), (0, 0, 0), (1, 1, 1)),
    ],
    ids=["clip", "align", "timm", "given"],
)
def test_each_source_is_normalised_as_its_weights_were_trained(params, mean, std):
    encoder = build(params, (64, 64))
    assert torch.allclose(1 / (255 * encoder.scale.flatten()), torch.tensor(std).float())
    means = -encoder.shift.flatten() / (255 * encoder.scale.flatten())
    assert torch.allclose(means, torch.tensor(mean).float(), atol=1e-6)


# the smallest of each family in open_clip's list: its ViT, its ResNet, CoCa's, and what it builds on timm
FAMILIES = {
    "ViT-S-32-alt": "ln_post", "ViT-B-32-256": "ln_post", "coca_ViT-B-32": "attn_pool", "RN50": "attnpool",
    "ViT-B-32-SigLIP2-256": "trunk.attn_pool", "ViT-B-16-SigLIP": "trunk.attn_pool", "convnext_tiny": "head.proj",
    "EVA02-B-16": "trunk.head", "PE-Core-T-16-384": "trunk.attn_pool", "MobileCLIP-S1": "trunk.head",
    "MobileCLIP2-S0": "trunk.head", "MobileCLIP-B": "trunk.head", "ViTamin-S": "head.proj",
    "swin_base_patch4_window7_224": "head.proj", "vit_medium_patch16_gap_256": "head.proj",
}  # fmt: skip
INCEPTION, NONE = ((0.5,) * 3,) * 2, ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_open_clip_has_is_normalised_as_it_says_and_layer_by_layer_from_the_input(name):
    with torch.device("meta"):  # shapes alone
        encoder = build(EncoderParams(name=f"open_clip:{name}"), (256, 128))
        assert encoder(torch.zeros(2, 3, 256, 128, dtype=torch.uint8)).shape == (2, encoder.dim)
        used = in_order(encoder)
    layers = encoder.layers()
    assert set(layers) == {parameter for parameter, _ in encoder.network.named_parameters()}
    assert set(layers.values()) == set(range(max(layers.values()) + 1)) and max(layers.values()) >= 5
    numbers = [layers[parameter] for parameter in used]
    assert numbers == sorted(numbers) and numbers[0] == 0, "used later, numbered lower"
    last = [parameter for parameter, layer in layers.items() if layer == max(layers.values())]
    assert any(parameter.startswith(FAMILIES[name]) for parameter in last), last


@pytest.mark.parametrize(
    "name, expected",
    [("PE-Core-T-16-384", INCEPTION), ("ViT-B-32-SigLIP2-256", INCEPTION), ("MobileCLIP2-S0", NONE),
     ("RN50", (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)), ("convnext_tiny", (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))],
)  # fmt: skip
def test_open_clips_mean_and_std_are_the_models_own(monkeypatch, name, expected):
    seen = []
    monkeypatch.setattr("reidlib.encoders.Encoder", lambda network, size, mean, std: seen.append((mean, std)))
    with torch.device("meta"):
        build(EncoderParams(name=f"open_clip:{name}"), (64, 64))
    assert [tuple(map(tuple, seen[0]))] == [tuple(map(tuple, expected))]


def test_what_is_no_uint8_picture_is_refused_with_the_way_to_one():
    encoder, x = build(CNN, SIZE), pictures()
    for wrong, how in [
        (x / 255, "float32 [2, 3, 32, 48]; floats from 0 to 1, as of torchvision's ToTensor: (255 * x)"),
        (x.permute(0, 2, 3, 1), "uint8 [2, 32, 48, 3]; channels last: x.movedim(-1, -3)"),
        (x[:, :1], "uint8 [2, 1, 32, 48]; grey: x.expand(-1, 3, -1, -1)"),
        (x[0], "uint8 [3, 32, 48]; one picture: x[None]"),
        (x.int(), "int32 [2, 3, 32, 48]; whole numbers from 0 to 255: x.to(torch.uint8)"),
        (x.numpy(), "this is ndarray; arrays: torch.from_numpy(x)"),
        (x[:, :, 0, 0], "uint8 [2, 3]"),
    ]:
        with pytest.raises(TypeError) as error:
            encoder(wrong)
        assert "wanted as a tensor, uint8 [B, 3, H, W] from 0 to 255" in str(error.value) and how in str(error.value)


def test_a_network_whose_layers_cant_be_told_apart_can_be_frozen_whole_and_not_in_part():
    encoder = Encoder(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), SIZE, (0,) * 3, (1,) * 3)
    encoder.freeze(0)
    model = Embedder(encoder, identities=2)
    assert parameter_groups(model, 0.0, layer_decay=1.0, head_lr=2.0)
    for ask in (lambda: encoder.freeze(0.5), lambda: parameter_groups(model, 0.0, layer_decay=0.9)):
        with pytest.raises(ValueError, match="layers of Sequential can't be told apart.*set frozen to 0.*layer_decay to 1"):
            ask()
    encoder.freeze(1)
    assert not any(p.requires_grad for p in encoder.network.parameters())


def test_clips_resnet_takes_a_size_that_is_not_square(tmp_path):
    vision = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
    params = CLIP.model_copy(update={"miniature": CLIP.miniature | {"vision": vision}})
    square, wide = build(params, (64, 64)), build(params, (64, 96))
    assert square.network.attnpool.positional_embedding.shape == (1 + 2 * 2, 256)
    assert wide.network.attnpool.positional_embedding.shape == (1 + 2 * 3, 256)
    for size in [(64, 96), (127, 65)]:  # the second leaves 4 x 3 patches, its quotients by 32 are 3 and 2
        assert build(params, size)(pictures(2, size)).shape == (2, 24)


def test_pictures_of_another_size_are_resized_and_stay_within_0_and_255():
    encoder = Encoder(Seen(), (16, 24), (0, 0, 0), (1 / 255,) * 3)
    encoder(torch.full((1, 3, 64, 32), 200, dtype=torch.uint8))
    assert encoder.network.input.shape == (1, 3, 16, 24)
    assert torch.allclose(encoder.network.input, torch.tensor(200.0), atol=1e-3)
    sharp = torch.zeros(1, 3, 64, 32, dtype=torch.uint8)
    sharp[..., 16:] = 255
    encoder(sharp)  # bicubic overshoots at an edge
    assert encoder.network.input.min() >= 0 and encoder.network.input.max() <= 255.001


@pytest.mark.parametrize("params", [CLIP, ALIGN, VIT, CNN], ids=["clip", "align", "vit", "cnn"])
def test_layers_are_numbered_from_the_input_and_freezing_starts_there(params):
    encoder = build(params, SIZE)
    layers = encoder.layers()
    names = [name for name, _ in encoder.network.named_parameters()]
    assert set(layers) == set(names) and set(layers.values()) == set(range(max(layers.values()) + 1))
    assert max(layers.values()) >= 2
    depth = {}
    for name in names:  # blocks are numbered in their names
        number = next((int(part) for part in name.split(".") if part.isdigit()), None)
        if number is not None:
            depth.setdefault(number, set()).add(layers[name])
    means = [sum(depth[n]) / len(depth[n]) for n in sorted(depth)]
    assert means == sorted(means) and (len(means) == 1 or means[0] < means[-1])

    stem = [n for n in names if "conv1" in n or "patch_embed" in n or "conv_stem" in n or "embeddings.convolution" in n]
    last = max(layers, key=layers.get)
    encoder.freeze(0.5)
    trained = {name: p.requires_grad for name, p in encoder.network.named_parameters()}
    assert stem and not any(trained[name] for name in stem) and trained[last]
    encoder.freeze(0)
    assert all(p.requires_grad for p in encoder.network.parameters())
    encoder.freeze(1)
    assert not any(p.requires_grad for p in encoder.network.parameters())


def test_frozen_batch_norms_keep_their_statistics_in_training():
    encoder = build(CNN, SIZE)
    encoder.freeze(0.5)
    before = {name: b.clone() for name, b in encoder.network.named_buffers() if name.endswith("running_mean")}
    encoder.train()(pictures(4))
    after = dict(encoder.network.named_buffers())
    trained = {name.rpartition(".")[0]: p.requires_grad for name, p in encoder.network.named_parameters()}
    changed = {name.rpartition(".")[0]: not torch.equal(before[name], after[name]) for name in before}
    assert set(changed.values()) == {True, False}
    assert all(changed[name] == trained[name] for name in changed)


def test_clip_weights_of_another_size_are_resampled_to_the_size_asked_for(tmp_path):
    model = open_clip.create_model("ViT-S-32-alt", force_image_size=(96, 96))
    file = tmp_path / "clip.pt"
    torch.save(model.state_dict(), file)
    encoder = build(EncoderParams(name="open_clip:ViT-S-32-alt", weights="clip.pt"), (96, 64), tmp_path)
    assert encoder(pictures(2, (96, 64))).shape == (2, encoder.dim)
    positions = encoder.network.positional_embedding
    assert positions.shape[0] == 1 + 3 * 2
    assert torch.equal(positions[0], model.visual.positional_embedding[0])  # the class token's is not resampled
    assert torch.equal(encoder.network.conv1.weight, model.visual.conv1.weight)


@pytest.mark.parametrize("head", [False, True], ids=["without a head", "with its classifier"])
@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_timm_weights_in_float16_load_from_a_local_file(tmp_path, name, head):
    model = timm.create_model(name, num_classes=1000 if head else 0)
    save_file(halved(model), tmp_path / "w.safetensors")
    encoder = build(EncoderParams(name=f"timm:{name}", weights="w.safetensors"), SIZE, tmp_path)
    ours, theirs = dict(encoder.network.named_parameters()), dict(model.named_parameters())
    assert not any(n.startswith(("head.", "classifier.")) for n in ours)
    for name in ours:
        assert ours[name].dtype == torch.float32
        if name != "pos_embed":  # resampled to 32 x 48
            assert torch.equal(ours[name], theirs[name].half().float()), name
    assert encoder(pictures()).shape == (2, encoder.dim)


@pytest.mark.parametrize("name", ["timm:resnet50", "align:kakaobrain/align-base"])
@pytest.mark.parametrize("weights", ["a3_in1k", "my_reid.ckpt", "resnet50.pt.gz"])
def test_weights_that_the_library_would_not_look_at_are_refused(name, weights):
    with pytest.raises(WeightsError, match=f"weights '{weights}' of {name} are neither 'hub'"):
        build(EncoderParams(name=name, weights=weights), SIZE)


def test_timm_weights_that_are_not_this_networks_are_refused(tmp_path):
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="w.safetensors"):
        build(EncoderParams(name="timm:test_vit", weights="w.safetensors"), SIZE, tmp_path)


class Opens:
    """Unpickled, it would make a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("name", ["timm:test_vit", "open_clip:ViT-S-32-alt", "align:kakaobrain/align-base"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, name):
    torch.save({"state_dict": {}, "extra": Opens(tmp_path / "was run")}, tmp_path / "w.pth.tar")
    with pytest.raises(
        WeightsError, match="w.pth.tar holds more than tensors: reading it would run .*open, which is refused"
    ):
        with torch.device("meta"):
            build(EncoderParams(name=name, weights="w.pth.tar"), SIZE, tmp_path)
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth", "w.pth.tar"])
def test_a_damaged_file_is_named_with_what_it_is_and_what_to_do(tmp_path, file):
    save = save_file if file.endswith("safetensors") else torch.save
    save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / file)
    whole = (tmp_path / file).read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for content, said in [
        (whole[: len(whole) // 2], "is damaged, cut off or no file of tensors"),
        (whole[:20], "is damaged, cut off or no file of tensors"),
        (b"<!DOCTYPE html><html>", "is damaged, cut off or no file of tensors"),
        (b"", "is empty: fetch it again"),
        (pointer, "is a Git LFS pointer in the file's place: run 'git lfs pull'"),
    ]:
        (tmp_path / file).write_bytes(content)
        with pytest.raises(WeightsError) as error:
            build(EncoderParams(name="timm:test_vit", weights=file), SIZE, tmp_path)
        assert f"weights '{file}' of timm:test_vit: {tmp_path / file} {said}" in str(error.value)
        assert "fetch" in str(error.value) and "\n" not in str(error.value)


TEXT_CFG = {"context_length": 4, "vocab_size": 9, "width": 16, "heads": 2, "layers": 1}
SMALL = {
    name: {"embed_dim": 16, "vision_cfg": {"image_size": 160} | vision, "text_cfg": TEXT_CFG}
    for name, vision in {
        "resnet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
        "on-timm": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
    }.items()
}


@pytest.mark.parametrize(
    "name, positions, tokens",
    [("resnet", "attnpool.positional_embedding", 1 + 4 * 2), ("on-timm", "trunk.pos_embed", 1 + 8 * 4)],
)
def test_weights_of_a_whole_clip_model_of_another_size_fit_a_size_that_is_not_square(
    tmp_path, monkeypatch, name, positions, tokens
):
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", SMALL)
    model = open_clip.create_model(name)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    encoder = build(EncoderParams(name=f"open_clip:{name}", weights="w.safetensors"), (128, 64), tmp_path)
    theirs = model.visual.state_dict()
    for parameter, value in encoder.network.state_dict().items():
        if parameter != positions:
            assert torch.equal(value, theirs[parameter]), parameter
    own = encoder.network.state_dict()[positions].flatten(end_dim=-2)
    assert len(own) == tokens and torch.equal(own[0], theirs[positions].flatten(end_dim=-2)[0])
    encoder.freeze(0.5)
    assert len({p.requires_grad for p in encoder.network.parameters()}) == 2
    assert encoder(pictures(2, (128, 64))).shape == (2, 16)


def reid_checkpoint(kind, name, size, identities=5):
    """A trained network as others keep it, and its state by the network's own names."""
    model = Embedder(build(EncoderParams(name=name), size), identities, teacher_dim=7)
    own = model.encoder.network.state_dict()
    head = {"classifier.weight": torch.zeros(751, 8), "classifier.bias": torch.zeros(751)}
    if kind == "torchreid":  # keeps a number of numpy's beside the tensors
        state = {f"module.{name}": value for name, value in (own | head).items()}
        return {"state_dict": state, "epoch": 3, "rank1": np.float32(0.5), "optimizer": {"param_groups": []}}, own
    if kind == "fast-reid":
        state = {f"backbone.{name}": value for name, value in own.items()} | {
            f"heads.{name}": v for name, v in head.items()
        }
        return {"model": state | {"pixel_mean": torch.zeros(1, 3, 1, 1)}, "iteration": 9}, own
    return {name: value.contiguous() for name, value in model.state_dict().items()}, own


@pytest.mark.parametrize(
    "name",
    [
        "timm:test_efficientnet",
        "timm:test_vit",
        "open_clip:ViT-S-32-alt",
        "open_clip:resnet",
        "open_clip:on-timm",
        "align:mini",
    ],
)
@pytest.mark.parametrize("kind", ["reidlib", "torchreid", "fast-reid"])
def test_a_network_trained_for_re_identification_is_started_from(tmp_path, capsys, monkeypatch, name, kind):
    size = (64, 32)
    if name in ("open_clip:resnet", "open_clip:on-timm"):  # the real ones are large
        monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", SMALL)
    if name == "align:mini":
        config = align_like_the_base().config.vision_config
        monkeypatch.setattr("transformers.AlignVisionConfig", lambda **_: config)
    checkpoint, own = reid_checkpoint(kind, name, size)
    file = "w.safetensors" if kind == "reidlib" else "w.pth.tar"
    (save_file if kind == "reidlib" else torch.save)(checkpoint, tmp_path / file)
    network = build(EncoderParams(name=name, weights=file), size, tmp_path).network
    assert all(torch.equal(value, own[parameter]) for parameter, value in network.state_dict().items())
    said = capsys.readouterr().out
    assert said.startswith(f"{name} from {file}: leaves out ") and said.count("\n") == 1
    assert "neck.classifier.weight" in said if kind == "reidlib" else "classifier.bias" in said


def test_what_is_not_nearly_all_of_the_network_is_refused(tmp_path):
    def refused(state, says, name="timm:resnet18"):
        save_file({f"backbone.{name}": value.contiguous() for name, value in state.items()}, tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match=f"w.safetensors {says}"):
            build(EncoderParams(name=name, weights="w.safetensors"), (64, 32), tmp_path)

    state = timm.create_model("resnet18", num_classes=0).state_dict()
    refused(
        {name: value for name, value in state.items() if not name.startswith("layer4")},
        "is another network's: ResNet also has layer4.0",
    )
    refused({"x": torch.zeros(3)}, "is another network's: ResNet also has conv1.weight, .*what it has besides: backbone.x")
    refused(timm.create_model("resnet34", num_classes=0).state_dict(), "is a larger network's, with layer1.2.")
    refused(timm.create_model("resnet18", num_classes=0, in_chans=1).state_dict(), "can't be used .*conv1 weight shape")
    refused(state, "is another network's: VisionTransformer also has ", "open_clip:ViT-S-32-alt")
    without_one = {name: value for name, value in state.items() if name != "bn1.weight"}
    save_file(without_one, tmp_path / "w.safetensors")
    network = build(EncoderParams(name="timm:resnet18", weights="w.safetensors"), (64, 32), tmp_path).network
    assert torch.equal(network.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])


def align_like_the_base(width=0.1):
    vision = AlignVisionConfig(width_coefficient=width, depth_coefficient=0.1, hidden_dim=32)
    config = AlignConfig(text_config=AlignTextConfig(vocab_size=9, **TEXT), vision_config=vision, projection_dim=32)
    return AlignModel(config)


def test_align_weights_load_from_a_folder_in_float16(tmp_path):
    model = align_like_the_base().half()
    model.save_pretrained(tmp_path / "align")
    encoder = build(EncoderParams(name=f"align:{tmp_path / 'align'}", weights="hub"), SIZE)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    kernel = model.vision_model.embeddings.convolution.weight.float()
    assert torch.equal(encoder.network.tower.embeddings.convolution.weight, kernel)
    assert encoder(pictures()).shape == (2, encoder.dim)


def test_align_weights_load_from_a_whole_models_file(tmp_path, monkeypatch):
    # the tower is made small here; the keys are those of the published file: text, temperature and all
    small = align_like_the_base().config.vision_config
    monkeypatch.setattr("transformers.AlignVisionConfig", lambda **_: small)
    model = align_like_the_base()
    save_file(halved(model), tmp_path / "a.safetensors")
    encoder = build(EncoderParams(name="align:kakaobrain/align-base", weights="a.safetensors"), SIZE, tmp_path)
    kernel = model.vision_model.embeddings.convolution.weight.half().float()
    assert torch.equal(encoder.network.tower.embeddings.convolution.weight, kernel)


def test_align_batch_norms_average_over_many_batches():
    # transformers takes the momentum of TensorFlow's config as torch's, where 0.99 keeps the last batch alone
    for module in [build(ALIGN, SIZE), builder(ALIGN)(ALIGN, SIZE, vocabulary=3)[0]]:
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and all(m.momentum <= 0.1 for m in norms)


@pytest.mark.parametrize("name", ["open_clip:ViT-B-16", "align:kakaobrain/align-base", "timm:test_vit"])
def test_a_missing_file_is_named_with_the_way_out(tmp_path, name):
    with pytest.raises(WeightsError) as error:
        build(EncoderParams(name=name, weights="none.safetensors"), SIZE, tmp_path)
    for part in (name, str(tmp_path / "none.safetensors"), "REIDLIB_WEIGHTS", "weights: null"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["open_clip:ViT-B-61", "timm:mobilnetv2_100"])
def test_an_unknown_network_is_named(name):
    with pytest.raises((ValueError, RuntimeError), match=name.partition(":")[2]):
        build(EncoderParams(name=name), SIZE)


@pytest.mark.parametrize(
    "params, where",
    [
        (CLIP, ("vision", "widht")),
        (CLIP, ("text", "layer")),
        (ALIGN, ("vision", "width_coeficient")),
        (ALIGN, ("text", "size")),
    ],
)
def test_an_unknown_key_of_a_miniature_is_named(params, where):
    part, key = where
    bad = {**params.miniature, part: {**params.miniature[part], key: 1}}
    with pytest.raises(ValueError, match=key):
        build(params.model_copy(update={"miniature": bad}), SIZE)


@pytest.mark.parametrize("params", [CLIP, ALIGN], ids=["clip", "align"])
def test_a_miniatures_image_tower_fits_the_encoder(params):
    model, tower = builder(params)(params, SIZE, vocabulary=7)
    assert {id(p) for p in tower.parameters()} <= {id(p) for p in model.parameters()}, "what is trained with the text"
    encoder = build(params, SIZE)
    encoder.network.load_state_dict(tower.state_dict())
    x = pictures().float() / 127.5 - 1
    with torch.no_grad():
        expected = tower.eval()(x)
        assert torch.allclose(encoder.eval()(pictures()), expected, atol=1e-5)


class FourPictures:
    """One batch: two identities, two pictures each."""

    def __init__(self, size):
        self.images, self.target = pictures(4, size), Target(torch.tensor([0, 0, 1, 1]))

    def __len__(self):
        return 1

    def epoch(self, epoch, device):
        yield (self.images,), self.target


@pytest.mark.parametrize(
    "name, size, millions",
    [("open_clip:ViT-B-16", (224, 224), 86.2), ("align:kakaobrain/align-base", (64, 64), 62.1)],
)
def test_the_real_architectures_build_train_a_step_save_and_load(tmp_path, name, size, millions):
    recipe = Recipe(epochs=1, p=2, k=2, lr=1e-4, warmup=0)
    machine = Machine("cpu")

    def fresh():
        return Embedder(build(EncoderParams(name=name), size), identities=2)

    model = fresh()
    before = next(model.encoder.parameters()).detach().clone()
    train(
        model, tmp_path, batches=FourPictures(size), epochs=1, lr=1e-4, warmup=0, layer_decay=0.8, machine=machine,
        objective=lambda output, target: reid_loss(output, target, recipe),
    )  # fmt: skip
    assert not torch.equal(before, next(model.encoder.parameters()))
    assert sum(p.numel() for p in model.encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    images = pictures(2, size).numpy()
    made = embed(model, images, machine)
    assert made.shape == (2, model.dim)
    save_model(model, tmp_path / "weights.safetensors")
    del model
    load_model(again := fresh(), tmp_path / "weights.safetensors")
    assert (embed(again, images, machine) == made).all()


def test_a_study_that_builds_no_network_imports_none_of_their_libraries():
    code = "import sys; from reidlib import claims, figures, gathering, study; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"open_clip", "transformers", "timm", "torchvision", "torch._dynamo", "scipy.stats", "sklearn", "nbformat"}
    assert "torch" in done.stdout.split()
    assert not slow.intersection(done.stdout.split())


def test_options_reach_timm():
    plain, dense = (
        build(EncoderParams(name="timm:mobilenetv2_050", options=o), (64, 32)) for o in ({}, {"output_stride": 16})
    )
    assert [e.network.forward_features(torch.zeros(1, 3, 64, 32)).shape[2:] for e in (plain, dense)] == [(2, 1), (4, 2)]
    with pytest.raises(OptionsError, match=r"timm:mobilenetv2_050: its options \{'last_stride': 1\}.*last_stride"):
        build(EncoderParams(name="timm:mobilenetv2_050", options={"last_stride": 1}), (64, 32))
    with pytest.raises(ValueError, match="open_clip:RN50 takes no 'options'"):
        EncoderParams(name="open_clip:RN50", options={"output_stride": 16})
