"""Encoders: every source gives what its name says, sees what it should, and numbers its layers from the input."""

import subprocess
import sys

import open_clip
import pytest
import timm
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import load_model, save_file, save_model
from torch import nn
from transformers import AlignConfig, AlignModel, AlignTextConfig, AlignVisionConfig

from reidlib.encoders import Encoder, WeightsError, build, image_tower, miniature
from reidlib.losses import Target, reid_loss
from reidlib.models import Embedder
from reidlib.params import EncoderParams, Recipe
from reidlib.training import Machine, embed, train

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


def test_timm_weights_that_are_not_this_networks_are_refused(tmp_path):
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="w.safetensors"):
        build(EncoderParams(name="timm:test_vit", weights="w.safetensors"), SIZE, tmp_path)


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
    for module in [build(ALIGN, SIZE), miniature(ALIGN, SIZE, vocabulary=3)]:
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
    model = miniature(params, SIZE, vocabulary=7)
    encoder = build(params, SIZE)
    encoder.network.load_state_dict(image_tower(model).state_dict())
    x = pictures().float() / 127.5 - 1
    with torch.no_grad():
        expected = image_tower(model.eval())(x)
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
