"""The training loop: it learns, resumes to the bit, and does with rates, frozen layers and teachers what it says."""

import contextlib
import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import distributed, multiprocessing, nn

from reidlib.encoders import Encoder, build
from reidlib.gates import Soft
from reidlib.losses import TERMS, Target, distillation_loss, moe_loss, reid_loss
from reidlib.models import Embedder, Output
from reidlib.params import Augmentation, DistillationParams, EncoderParams, Recipe
from reidlib.training import FeatureBatches, Machine, PictureBatches, TeacherCache, embed, parameter_groups, train
from reidlib.units import Store, Unit

torch.set_num_threads(1)
CPU = Machine("cpu")
LABELS = np.repeat(np.arange(6), 4)
PLAIN = Augmentation(flip=0, pad=0, erase=0)
RECIPE = Recipe(epochs=4, p=3, k=2, lr=0.01, warmup=1, augmentation=PLAIN)
CLIP = EncoderParams(
    name="open_clip:miniature",
    size=(16, 16),
    miniature={
        "embed_dim": 16,
        "vision": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text": {"layers": 1, "width": 16, "heads": 2},
    },
)


def coloured(noise=20, seed=0):
    """Pictures uint8 [24, 3, 16, 16] whose identity is their colour."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(30, 220, size=(6, 3))[LABELS][:, :, None, None]
    return np.clip(colours + rng.integers(-noise, noise + 1, size=(24, 3, 16, 16)), 0, 255).astype(np.uint8)


def tiny(seed=0, dropout=0.0, teacher_dim=None):
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )
    return Embedder(Encoder(network, (16, 16), (0.5,) * 3, (0.5,) * 3), 6, teacher_dim)


def clip(seed=0):
    torch.manual_seed(seed)
    return Embedder(build(CLIP, (16, 16)), 6)


def fit(model, folder, recipe=RECIPE, objective=None, batches=None, seed=0, machine=CPU, **more):
    folder.mkdir(exist_ok=True)
    batches = batches or PictureBatches(coloured(), LABELS, recipe, seed)
    settings = recipe.model_dump(include={"epochs", "lr", "weight_decay", "warmup", "layer_decay"}) | more
    objective = objective or (lambda output, target: reid_loss(output, target, recipe))
    return train(model, folder, batches=batches, objective=objective, seed=seed, machine=machine, **settings)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_loss_falls_and_the_history_says_so(tmp_path):
    history = fit(model := tiny(), tmp_path, epochs=10)
    assert list(history.columns) == ["epoch", "loss", "identity", "triplet"]
    assert list(history["epoch"]) == list(range(1, 11))
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]
    assert np.allclose(history["loss"], history["identity"] + history["triplet"])
    assert not model.training
    with torch.no_grad():
        predicted = model.neck.classifier(model(torch.from_numpy(coloured(seed=0)))).argmax(1)
    assert (predicted.numpy() == LABELS).mean() > 0.8


def test_the_seed_decides_all(tmp_path):
    runs = []
    for run, seed in enumerate([1, 1, 2]):
        runs.append(tiny(dropout=0.3))
        torch.manual_seed(100 + run)  # what was drawn before must not matter
        recipe = RECIPE.model_copy(update={"augmentation": Augmentation()})
        fit(runs[-1], tmp_path / str(run), recipe, seed=seed, epochs=1)
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


@pytest.mark.parametrize("network", [tiny, clip])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path, network):
    decay = 1.0 if network is tiny else 0.5  # its layers can't be told apart
    recipe = RECIPE.model_copy(update={"augmentation": Augmentation(), "layer_decay": decay})
    options = {"dropout": 0.3} if network is tiny else {}
    whole, broken = network(**options), network(**options)
    history = fit(whole, tmp_path / "a", recipe)

    class Broken(PictureBatches):
        def epoch(self, epoch, device):
            for number, batch in enumerate(super().epoch(epoch, device)):
                if epoch == 2 and number == 1:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        fit(broken, tmp_path / "b", recipe, batches=Broken(coloured(), LABELS, recipe, 0))
    assert (tmp_path / "b" / "checkpoint.pt").exists()
    assert sorted(f.name for f in (tmp_path / "b").iterdir()) == ["checkpoint.pt", "history.csv"]

    seen = []

    class Counted(PictureBatches):
        def epoch(self, epoch, device):
            seen.append(epoch)
            return super().epoch(epoch, device)

    resumed = network(seed=9, **options)  # what the model held before is replaced
    again = fit(resumed, tmp_path / "b", recipe, batches=Counted(coloured(), LABELS, recipe, 0))
    assert seen == [2, 3]
    assert same(whole, resumed)
    assert again.equals(history)


@pytest.mark.parametrize("damage", [lambda x: x[:-100], lambda x: x[:100] + bytes([x[100] ^ 1]) + x[101:], lambda x: b""])
def test_a_damaged_checkpoint_is_set_aside_and_training_starts_again(tmp_path, capsys, damage):
    recipe = RECIPE.model_copy(update={"augmentation": Augmentation()})
    whole, broken = tiny(), tiny()
    fit(whole, tmp_path / "a", recipe)

    class Broken(PictureBatches):
        def epoch(self, epoch, device):
            if epoch == 2:
                raise KeyboardInterrupt
            return super().epoch(epoch, device)

    with pytest.raises(KeyboardInterrupt):
        fit(broken, tmp_path / "b", recipe, batches=Broken(coloured(), LABELS, recipe, 0))
    file = tmp_path / "b" / "checkpoint.pt"
    file.write_bytes(damage(file.read_bytes()))
    again = tiny()
    assert len(fit(again, tmp_path / "b", recipe)) == recipe.epochs and same(whole, again)
    assert f"{file} is damaged: it is set aside as damaged-checkpoint.pt" in capsys.readouterr().err


def rates(model, folder, **settings):
    """The learning rates of the optimizer's groups at each step, by the names of their parameters."""
    recipe = RECIPE.model_copy(update={"p": 6})  # all identities in each batch: two batches an epoch, always
    found, original = [], torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        names = {id(p): name for name, p in model.named_parameters()}
        found.append({names[id(p)]: group["lr"] for group in self.param_groups for p in group["params"]})
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        fit(model, folder, recipe, **settings)
    return found


def test_layer_wise_rates_reach_the_optimizer_at_every_step(tmp_path):
    model = clip()
    layers, last = model.encoder.layers(), max(model.encoder.layers().values())
    found = rates(model, tmp_path, layer_decay=0.5, lr=0.01, warmup=1)
    assert len(found) == 4 * 2
    for at in found:
        head = at["neck.classifier.weight"]
        assert at["neck.norm.weight"] == head
        for name, layer in layers.items():
            assert at[f"encoder.network.{name}"] == pytest.approx(head * 0.5 ** (last - layer))


def test_the_rate_warms_up_to_the_peak_and_falls_to_nearly_zero(tmp_path):
    found = [at["neck.classifier.weight"] for at in rates(tiny(), tmp_path, lr=0.01, warmup=2, epochs=8)]
    start = len(found) // 4  # two epochs of eight
    assert found[0] == pytest.approx(1e-4)
    assert np.allclose(np.diff(found[: start + 1]), np.diff(found)[0])  # linear
    assert found[start] == pytest.approx(0.01) == max(found)
    left = len(found) - start
    expected = [0.005 * (1 + np.cos(np.pi * t / left)) for t in range(left)]
    assert np.allclose(found[start:], expected)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_each_trained_parameter_is_in_one_group_and_vectors_do_not_decay(layer_decay):
    model = clip()
    model.encoder.freeze(0.5)
    groups = parameter_groups(model, 0.05, layer_decay)
    grouped = [id(p) for group in groups for p in group["params"]]
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trained
    assert all((group["weight_decay"] == 0) == all(p.ndim <= 1 for p in group["params"]) for group in groups)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_frozen_layers_do_not_change(tmp_path, layer_decay):
    model = Embedder(build(EncoderParams(name="timm:test_efficientnet"), (16, 16)), 6)
    model.encoder.freeze(0.5)
    before = {name: value.clone() for name, value in model.encoder.network.state_dict().items()}
    fit(model, tmp_path, epochs=1, layer_decay=layer_decay)
    layers, first = model.encoder.layers(), 0.5 * (max(model.encoder.layers().values()) + 1)
    after = model.encoder.network.state_dict()
    for name, layer in layers.items():
        assert torch.equal(before[name], after[name]) == (layer < first), name
    stem = [name for name in before if name.startswith("bn1.running")]
    assert stem and all(torch.equal(before[name], after[name]) for name in stem)


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    with pytest.raises(FloatingPointError, match="expert x.*epoch 1.*lr"):
        no_number = {"bad": torch.tensor(float("nan"), requires_grad=True)}
        fit(tiny(), tmp_path, objective=lambda output, target: no_number, label="expert x")
    assert not list(tmp_path.iterdir())


def test_the_gate_is_trained_on_the_experts_embeddings(tmp_path):
    rng = np.random.default_rng(0)
    useful = np.eye(6, dtype=np.float32)[LABELS][:, None].repeat(2, axis=1) + 0.01
    noise = rng.normal(size=(24, 2, 5)).astype(np.float32)
    torch.manual_seed(0)
    fusion = Soft([6, 5], 16, 6)
    history = fit(fusion, tmp_path, batches=FeatureBatches([useful, noise], LABELS, RECIPE, 0), epochs=20)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    sides = [torch.from_numpy(x[:, 0]) for x in (useful, noise)]
    assert fusion.weights(sides)[:, 0].mean() > 0.5


def test_feature_batches_take_both_sides_of_the_pictures_that_index_names():
    features = [np.stack([np.arange(24), np.arange(24) + 100], axis=1)[:, :, None].astype(np.float32) for _ in range(2)]
    batches, taken = FeatureBatches(features, LABELS, RECIPE, 0), []
    for index, ((inputs,), target) in zip(batches.index(1), batches.epoch(1, torch.device("cpu")), strict=True):
        assert torch.equal(inputs[0], inputs[1])
        assert (inputs[0][:, 0].numpy() % 100 == index).all()
        assert (target.pid.numpy() == LABELS[index]).all()
        taken += (inputs[0][:, 0] >= 100).tolist()
    assert {True, False} == set(taken)


def test_the_teacher_speaks_of_the_side_the_student_sees():
    # each picture has a bright left half, its mirror image a bright right half; the cache says (index, side)
    pixels = np.zeros((24, 3, 8, 8), np.uint8)
    pixels[..., :4] = 200
    pixels[:, 0, :, :] += np.arange(24, dtype=np.uint8)[:, None, None]
    said = np.stack(np.meshgrid(np.arange(24), np.arange(2), indexing="ij"), axis=-1).astype(np.float32)
    recipe = RECIPE.model_copy(update={"augmentation": Augmentation(flip=0.5, pad=0, erase=0)})
    sides = []
    for epoch in range(3):
        batches = PictureBatches(pixels, LABELS, recipe, 0, TeacherCache(said, 10 * said))
        for (images,), target in batches.epoch(epoch, torch.device("cpu")):
            index, side = target.embedding.T
            mirrored = images[:, 1, 0, 0] == 0
            dark = torch.where(mirrored, images[:, 0, 0, 0], images[:, 0, 0, 7])
            assert torch.equal(dark.float(), index) and torch.equal(mirrored.float(), side)
            assert torch.equal(target.logits, 10 * target.embedding)
            assert torch.equal(target.pid, torch.from_numpy(LABELS)[index.long()])
            sides += side.tolist()
    assert 0.2 < np.mean(sides) < 0.8


def test_a_student_comes_nearer_to_its_teacher_than_without_one(tmp_path):
    pixels, teacher = coloured(noise=60), tiny(seed=5)  # untrained, so that the labels say nothing of it
    sides = [embed(teacher, pixels, CPU, mirrored=m) for m in (False, True)]
    with torch.no_grad():
        logits = [teacher.neck.classifier(torch.from_numpy(x)).numpy() for x in sides]
    cache = TeacherCache(np.stack(sides, 1), np.stack(logits, 1))
    kd, apart = DistillationParams(teachers=[], terms={"logit": 1, "embedding": 1, "relational": 50}), []
    for name, objective in {
        "alone": lambda output, target: reid_loss(output, target, RECIPE),
        "taught": lambda output, target: distillation_loss(output, target, RECIPE, kd),
    }.items():
        student, batches = tiny(seed=6, teacher_dim=teacher.dim), PictureBatches(pixels, LABELS, RECIPE, 0, cache)
        fit(student, tmp_path / name, batches=batches, epochs=20, objective=objective)
        made = torch.from_numpy(embed(student, pixels, CPU))
        wanted = Target(None, torch.from_numpy(sides[0]))
        apart.append(TERMS["relational"](Output(None, made, None), wanted, kd).item())
    assert apart[1] < 0.9 * apart[0]


def test_embeddings_are_those_of_evaluation_in_order_whatever_the_batch():
    model, pixels = tiny().train(), coloured()
    made = embed(model, pixels, CPU, batch=7)
    assert made.shape == (24, model.dim) and made.dtype == np.float32
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(pixels)).numpy()
    assert np.allclose(made, expected, atol=1e-5)


def test_mirrored_embeds_the_mirror_image():
    model, pixels = tiny(), coloured()
    assert np.allclose(embed(model, pixels, CPU, mirrored=True), embed(model, pixels[..., ::-1], CPU), atol=1e-6)
    assert not np.allclose(embed(model, pixels, CPU, mirrored=True), embed(model, pixels, CPU))
    symmetric = np.concatenate([pixels[..., :8], pixels[..., :8][..., ::-1]], axis=-1)
    assert np.array_equal(embed(model, symmetric, CPU, mirrored=True), embed(model, symmetric, CPU))


def test_a_machine_is_as_it_says_whatever_came_before(tmp_path):
    fit(tiny(), tmp_path / "a", epochs=1)
    model = tiny()
    fit(model, tmp_path / "b", epochs=1, machine=Machine("cpu", "bf16"))
    assert model.forward.__func__ is Embedder.forward, "accelerate's wrapper must not outlive the training"
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert Machine("cpu").accelerator().mixed_precision == "no"
    assert embed(model, coloured(), Machine("cpu", "bf16")).dtype == np.float32


@pytest.mark.parametrize("fast, computed", [(True, "bf16"), (False, "no")])
def test_bf16_is_computed_where_the_processor_can(monkeypatch, fast, computed):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: fast)
    assert Machine("cpu", "bf16").accelerator().mixed_precision == computed
    assert Machine("cpu", "bf16").crawls() != fast and not Machine("cpu").crawls()


class Elsewhere(nn.Module):
    """Stands in for a network on a device that this machine lacks: knows where it is, and that pictures must be there too."""

    def __init__(self, where="cpu"):
        super().__init__()
        self.where = torch.device(where)

    def parameters(self, recurse=True):
        yield SimpleNamespace(device=self.where)

    def to(self, device):
        self.where = torch.device(device)
        return self

    def forward(self, images):
        assert images.device == self.where
        return torch.zeros(len(images), 2)


@pytest.mark.parametrize("home, away", [("cpu", "meta"), ("meta", "cpu"), ("cpu", "cpu")])
def test_embedding_leaves_a_network_where_it_was(home, away):
    accelerator = SimpleNamespace(device=torch.device(away), autocast=contextlib.nullcontext)
    machine, model = SimpleNamespace(accelerator=lambda: accelerator), Elsewhere(home)
    assert embed(model, coloured(), machine, batch=10).shape == (24, 2)
    assert model.where == torch.device(home)
    with pytest.raises(IndexError):
        embed(model, np.zeros((3, 0)), machine, mirrored=True)
    assert model.where == torch.device(home), "after a failure too"


def test_what_is_trained_on_another_device_comes_back_to_the_cpu(tmp_path, monkeypatch):
    moves, prepare, cpu = [], Accelerator.prepare_model, Embedder.cpu
    monkeypatch.setattr(
        Accelerator, "prepare_model", lambda *given, **more: moves.append("away") or prepare(*given, **more)
    )
    monkeypatch.setattr(Embedder, "cpu", lambda model: moves.append("home") or cpu(model))
    fit(tiny(), tmp_path, epochs=1)
    assert moves == ["away", "home"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_what_is_trained_on_a_gpu_comes_back_to_the_cpu(tmp_path):
    fit(model := tiny(), tmp_path, epochs=1, machine=Machine("cuda"))
    made = embed(model, coloured(), Machine("cuda"))
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert np.allclose(made, embed(model, coloured(), CPU), atol=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_in_silence():
    with pytest.raises(ValueError, match="device: cuda"):
        Machine("cuda").accelerator()


# several processes

MANY = RECIPE.model_copy(update={"epochs": 2, "p": 6, "lr": 1e-3, "augmentation": Augmentation(pad=2)})


def taught():
    """A student with batch norms of several classes, dropout and all terms of distillation: model, batches, objective."""
    torch.manual_seed(3)
    student = Embedder(build(EncoderParams(name="timm:test_byobnet"), (32, 32)), 6, teacher_dim=7)
    student.encoder.network = nn.Sequential(student.encoder.network, nn.Dropout(0.2))
    student.encoder.network[0].stem.requires_grad_(False)  # its batch norm is frozen
    rng = np.random.default_rng(4)
    pixels = np.kron(coloured(noise=60), np.ones((2, 2), np.uint8))
    cache = TeacherCache(*(rng.normal(size=(24, 2, width)).astype(np.float32) for width in (7, 6)))
    kd = DistillationParams(teachers=[])
    batches = PictureBatches(pixels, LABELS, MANY, 0, cache)
    return student, batches, lambda output, target: distillation_loss(output, target, MANY, kd)


def gated():
    """A gate with a term that balances its choice over the batch: model, batches, objective."""
    torch.manual_seed(5)
    rng = np.random.default_rng(6)
    features = [rng.normal(size=(24, 2, width)).astype(np.float32) for width in (6, 5)]
    batches = FeatureBatches(features, LABELS, MANY, 0)
    return Soft([6, 5], 16, 6), batches, lambda output, target: moe_loss(output, target, MANY, balance=1)


def trained(root):
    """What comes of both: the history and the weights."""
    found = []
    for name, make in {"student": taught, "gate": gated}.items():
        model, batches, objective = make()
        given = {"model": model, "objective": objective, "batches": batches}
        history = Store(root).arrays(Unit(name, name, fitted, given=given))["history"]
        found.append((history, model.state_dict()))
    return found


def fitted(unit, store, folder):
    return {"history": fit(unit.given["model"], folder, MANY, unit.given["objective"], unit.given["batches"]).to_numpy()}


def one_of(rank, meeting, count, root):
    """What each of `count` processes does."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}  # as accelerate launch has it
    os.environ.update({name: str(value) for name, value in own.items()})
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    torch.save(trained(root / "store"), root / f"{rank}.pt")
    with pytest.raises(ValueError, match=r"2 processes can't share batches of 9 evenly.*p x k"):
        fit(tiny(), root / f"odd-{rank}", RECIPE.model_copy(update={"p": 3, "k": 3}))
    distributed.destroy_process_group()


def test_two_processes_end_where_one_does(tmp_path):
    # daemons, with a limit: a process that waits for another one for ever must not keep the tests from ending
    both = multiprocessing.spawn(one_of, args=(tmp_path / "meeting", 2, tmp_path), nprocs=2, join=False, daemon=True)
    ended = time.monotonic() + 300
    while not both.join(timeout=5):
        assert time.monotonic() < ended, "two processes have not ended after 300 s"
    alone = trained(tmp_path / "alone")
    for rank in range(2):
        for (history, state), (expected, weights) in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=False), alone):
            assert np.allclose(history, expected, rtol=1e-4)
            assert state.keys() == weights.keys()
            for name in weights:
                assert torch.allclose(state[name], weights[name], rtol=1e-4, atol=2e-5), name
    made = [json.loads(file.read_text())["made"]["processes"] for file in (tmp_path / "store").rglob("unit.json")]
    assert made == [2, 2] and not list(tmp_path.rglob("*.partial"))
