"""What re-keys the units of a study, and what doesn't: bytes, weights, labels, precision, threads, code, names."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import tiny
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file

from reidlib.params import EncoderParams, ParamsError
from reidlib.study import open_study
from reidlib.weights import WeightsError, weights_identity

VEHICLES = "vehicles seed 0"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The smallest study's params file and its keys; nothing of it is made but its drawn pictures."""
    file = tiny.write(tmp_path_factory.mktemp("keys"))
    return file, tiny.keys(file)


def kinds(labels):
    """Which of a change's labels are of what: pretrained, experts, gates, students."""
    starts = {"pretrained": ("pretrain ",), "experts": ("expert:",), "gates": ("moe:",), "students": ("student",)}
    return {kind for kind, start in starts.items() if any(label.startswith(start) for label in labels)}


def anew(base, *overrides, **options):
    """The labels that have other keys after a change of the params, of those that are there both times."""
    before, after = base[1], tiny.keys(base[0], *overrides, **options)
    both = before.keys() & after.keys()
    assert VEHICLES in " ".join(both)
    return tiny.changed({label: before[label] for label in both}, {label: after[label] for label in both})


def anew_by_code(base):
    return tiny.changed(base[1], tiny.keys(base[0]))


# pictures and labels


@contextmanager
def put_back(file):
    content = file.read_bytes()
    try:
        yield
    finally:
        file.write_bytes(content)


def test_a_jpegs_bytes_changed_at_equal_size_are_other_pictures(base):
    study = open_study(base[0])
    file = Path(study.dataset("vehicles").train["path"][0])
    with put_back(file):
        content = bytearray(file.read_bytes())
        content[-10] ^= 1
        file.write_bytes(content)
        found = anew(base)
    assert {"pixels vehicles train", f"expert:clip {VEHICLES}", f"student+kd:moe {VEHICLES}"} <= found
    assert not found & {"pixels vehicles query", "pixels people train", "expert:clip people seed 0", "pretrain clip"}
    assert not anew(base)


def test_a_changed_query_picture_is_evaluated_anew_and_trains_nothing(base):
    file = Path(open_study(base[0]).dataset("vehicles").query["path"][0])
    with put_back(file):
        Image.new("RGB", (64, 64)).save(file)
        found = anew(base)
    assert f"evaluation student {VEHICLES} on vehicles" in found and not kinds(found)


def test_a_picture_that_moves_is_the_same_and_one_that_is_called_otherwise_is_trained_otherwise(
    base, tmp_path, monkeypatch
):
    monkeypatch.delenv("REIDLIB_DATA", raising=False)
    params = {"datasets.vehicles": None, "datasets.market": {"layout": "market1501", "size": [32, 32], "root": "market"}}
    root = tmp_path / "data" / "market"
    shutil.copytree(open_study(base[0]).dataset("people").root, root)
    file = tiny.write(tmp_path, changes=params | {"ablations": None, "mixed": None, "datasets.people": None})
    before = tiny.keys(file)
    root.rename(moved := tmp_path / "data" / "elsewhere")
    file.write_text(file.read_text().replace("root: market", "root: elsewhere"))
    assert tiny.keys(file) == before
    first = min((moved / "bounding_box_train").iterdir())
    first.rename(first.with_name(f"{9999}{first.name[4:]}"))
    found = tiny.changed(before, tiny.keys(file))
    assert {"experts", "gates", "students"} <= kinds(found)
    assert "pixels market query" not in found


def test_a_camera_that_is_read_otherwise_is_evaluated_anew_and_trains_nothing(base, monkeypatch):
    from reidlib.data import layouts

    def read(root):
        dataset = layouts.read_veri776(root)
        dataset.query["camid"] = dataset.query["camid"] % 2 + 1
        return dataset

    monkeypatch.setitem(layouts.LAYOUTS, "veri776", read)
    found = anew(base)
    assert f"evaluation student {VEHICLES} on vehicles" in found and not kinds(found)


def test_an_identity_that_is_read_otherwise_is_trained_anew(base, monkeypatch):
    from reidlib.data import layouts

    def read(root):
        dataset = layouts.read_veri776(root)
        dataset.train.loc[0, "pid"] = dataset.train["pid"].iloc[-1]
        return dataset

    monkeypatch.setitem(layouts.LAYOUTS, "veri776", read)
    found = anew(base)
    assert {f"{method} {VEHICLES}" for method in ("expert:clip", "moe:uniform", "moe:router", "student")} <= found
    assert "pixels vehicles train" not in found and "expert:clip people seed 0" not in found


def test_a_validation_split_is_trained_on_its_own(base):
    found = anew(base, validation=0.5)
    assert {"experts", "gates", "students"} <= kinds(found)


def test_a_data_set_taken_out_pretrains_anew(base):
    """For the words of its captions, and its pictures, are gone."""
    file = tiny.write(base[0].parents[1], "alone", {"datasets.people": None, "mixed": None})
    before, after = base[1], tiny.keys(file)
    for label in ("captioned 32x32", "pretrain clip", f"expert:clip {VEHICLES}", f"moe:soft {VEHICLES}"):
        assert before[label] != after[label], label
    assert before[f"student {VEHICLES}"] == after[f"student {VEHICLES}"]


# params


def test_precision_and_threads_are_in_every_key_that_computes(base):
    for change in ("precision=bf16", "threads=2"):
        found = anew(base, change)
        computed = {label for label in base[1] if not label.startswith(("pixels ", "captioned "))}
        assert {label for label in computed - found if "pixels" not in label} == set(), change
        assert not found - computed


@pytest.mark.parametrize(
    "change", ["device=auto", "title=x", "datasets.vehicles.title=x", "note=x", "experts.clip.stands_in_for=x"]
)
def test_what_changes_no_number_changes_no_key(base, change):
    assert not anew(base, change)


def test_a_networks_own_precision_is_in_its_keys_alone(base):
    assert not anew(base, "student.precision=no"), "the study's own"
    found = {label for label in anew(base, "student.precision=bf16") if VEHICLES in label}
    assert kinds(found) == {"students"} and f"evaluation student {VEHICLES} on vehicles" in found
    assert f"evaluation moe:soft {VEHICLES} on vehicles" not in found
    study = open_study(base[0], ["student.precision=bf16"])
    unit = study.plan.embeddings("student", "vehicles", 0, "vehicles", "query")
    assert unit.given["machine"].precision == unit.parents["network"].given["machine"].precision == "bf16"


def test_a_recipe_under_a_teacher_is_that_of_all_taught_students_and_of_nothing_else(base):
    same = "student.taught={epochs: 1, p: 4, k: 2, lr: 0.001, augmentation: {pad: 2}}"
    assert not anew(base, same)
    found = anew(base, same.replace("0.001", "0.002"))
    assert kinds(found) == {"students"}
    taught = {label for label in base[1] if label.startswith("student+kd")}
    assert {label for label in found if label.startswith("student")} == taught
    assert "evaluation student vehicles seed 0 on vehicles" not in found


def test_experts_in_another_order_are_other_gates(base):
    """Whose projections would be loaded for the wrong experts."""
    file = tiny.write(base[0].parents[1], "turned", experts=dict(reversed(tiny.TREE["experts"].items())))
    found = tiny.changed(
        *({k: v for k, v in keys.items() if VEHICLES in k and "cost" not in k} for keys in (base[1], tiny.keys(file)))
    )
    assert kinds(found) == {"gates", "students"}
    assert f"student+kd:clip {VEHICLES}" not in found and f"moe:top1 {VEHICLES}" in found


def test_a_variant_that_says_what_the_study_says_is_the_study(base):
    plan = open_study(base[0]).plan
    key = lambda method: plan.network(method, "vehicles", 0).key  # noqa: E731
    base_key = key("student+kd:moe")
    for same in ("temperature=4", "temperature=4.0", "teacher=cached", "terms=relational+logit+embedding"):
        assert key(f"student+kd:moe/{same}") == base_key, same
    others = [key(f"student+kd:moe/{other}") for other in ("temperature=3", "teacher=online", "terms=logit", "size=vit")]
    assert len({*others, base_key}) == 5


# code


@pytest.mark.parametrize(
    "module, old, new",
    [
        ("reidlib.models", "An encoder with BNNeck: an expert, or the student.", "An encoder."),
        ("reidlib.data.store", "resized to `size` (h, w) with an antialiased", "with an"),
        ("reidlib.training", "lower its recipe's lr", "take a smaller lr"),
        ("reidlib.data.store", 'f"No images to decode into {file}"', '"nothing to do"'),
        ("reidlib.neck", "def __init__(self, dim: int, identities: int):", "def __init__(self, dim, identities: 'int'):"),
        ("reidlib.training", "# timm's scheduler multiplies each group's lr_scale in", ""),
        ("reidlib.losses.reid", "embedding: torch.Tensor | None = None", "embedding: 'torch.Tensor' = None"),
        ("reidlib.figures.style", "WIDTH =", "WIDTH = 2 *"),
        ("reidlib.gates", '"concat": Concat,', '"concat": Concat, "mine": Soft,'),
    ],
)
def test_words_annotations_and_what_is_not_used_re_key_nothing(base, edited, module, old, new):
    edited(module, old, new)
    assert not anew_by_code(base)


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ("max(size) if is_resnet", "min(size) if is_resnet", {"pretrain clip", f"expert:clip {VEHICLES}"}),
        ("module.momentum = 0.1", "module.momentum = 0.2", {"pretrain align", f"expert:align {VEHICLES}"}),
        ('fixed["dynamic_img_size"] = True', 'fixed["dynamic_img_size"] = False',
         {f"student {VEHICLES}", f"moe:router {VEHICLES}"}),
        ("require_pretrained=file is None", "require_pretrained=True", set()),
        ("AlignVisionConfig(hidden_dim=640)", "AlignVisionConfig(hidden_dim=320)", set()),
    ],
)  # fmt: skip
def test_a_changed_builder_re_keys_the_networks_that_it_builds(base, edited, old, new, expected):
    edited("reidlib.towers", old, new)
    own = {"pretrain clip", "pretrain align"} | {
        f"{m} {VEHICLES}" for m in ("expert:clip", "expert:align", "student", "moe:router")
    }
    found = anew_by_code(base) & own
    if any("expert" in label for label in expected):  # the router learns from the experts' embeddings
        expected = expected | {f"moe:router {VEHICLES}"}
    assert found == expected


@pytest.mark.parametrize("old, source", [("require_pretrained=file is None", "clip"), ("(hidden_dim=640)", "align")])
def test_the_paper_networks_costs_count_their_builders(base, edited, old, source):
    key = lambda: open_study("params/demo.yaml").plan.costs("paper").key  # noqa: E731
    before = key()
    edited("reidlib.towers", old, "require_pretrained=True" if source == "clip" else "(hidden_dim=320)")
    assert key() != before


def test_another_resize_filter_decodes_anew_and_trains_anew_on_it(base, edited):
    edited("reidlib.data.store", "Image.Resampling.BICUBIC", "Image.Resampling.BILINEAR")
    found = anew_by_code(base)
    assert {label for label in base[1] if label.startswith("pixels ")} <= found
    assert kinds(found) == {"experts", "gates", "students"}, "and pretraining is on pictures that were never decoded"


def test_a_new_term_re_keys_nothing(base, edited):
    edited(
        "reidlib.losses.distillation", 'TERMS: dict[str, Callable] = {"logit"',
        'def cosine(output, target, kd):\n    return output.embedding.mean()\n\n\nTERMS: dict[str, Callable] = {"cosine": cosine, "logit"',
    )  # fmt: skip
    assert not anew_by_code(base)


def test_a_changed_term_re_keys_the_students_that_have_it_and_nothing_else(base, edited):
    edited(
        "reidlib.losses.distillation",
        "return difference.square().sum() / (b * (b - 1))",
        "return difference.abs().sum() / b",
    )
    found = {label for label in anew_by_code(base) if VEHICLES in label and label.startswith(("student", "moe", "expert"))}
    taught = {f"student+kd:{t} {VEHICLES}" for t in ("clip", "align", "uniform", "moe")}
    variants = ("temperature=1", "teacher=online", "size=vit", "epochs=2", "terms=embedding+relational")
    assert found == taught | {f"student+kd:moe/{v} {VEHICLES}" for v in variants}


def test_a_changed_gate_re_keys_it_and_what_it_teaches(base, edited):
    edited("reidlib.gates", "nn.init.zeros_(gate.bias)", "nn.init.ones_(gate.bias)")
    found = anew_by_code(base)
    networks = {
        label for label in found if VEHICLES in label and label.startswith(("student", "moe", "expert", "pretrain"))
    }
    assert {f"moe:{gate} {VEHICLES}" for gate in ("soft", "top1", "router")} <= networks, "the top-1 gate is a soft one"
    assert not networks & {
        f"{m} {VEHICLES}" for m in ("moe:uniform", "student", "student+kd:uniform", "student+kd:clip", "expert:clip")
    }


@pytest.mark.parametrize(
    "module, old, new, expected",
    [
        ("reidlib.losses.gating", "importance.var(unbiased=False)", "importance.var()", {"gates", "students"}),
        ("reidlib.losses.reid", "if recipe.triplet:", "if recipe.triplet > 0:", {"experts", "gates", "students"}),
        ("reidlib.pretraining", "F.normalize(out.image_embeds), ", "out.image_embeds, ", None),
        ("reidlib.retrieval.distances", "import numba", "import numba\nnumba.config.X = 1", set()),
        ("reidlib.profiling", "WARM_UP = 1", "WARM_UP = 2", set()),
    ],
)
def test_code_re_keys_what_runs_it(base, edited, module, old, new, expected):
    edited(module, old, new)
    found = anew_by_code(base)
    assert found and (expected is None or kinds(found) == expected)
    assert ("pretrain clip" in found) == (module == "reidlib.pretraining")
    assert ("costs" in found) == (module != "reidlib.retrieval.distances")


def test_costs_and_embeddings_count_the_gates_and_the_machine_that_they_are_measured_with(base, edited):
    before = tiny.keys(base[0])
    edited("reidlib.gates", "self.dim = sum(dims)", "self.dim = 2 * sum(dims)")
    found = tiny.changed(before, tiny.keys(base[0]))
    assert "costs" in found and f"evaluation moe:concat {VEHICLES} on vehicles" in found and not kinds(found)
    plan, paper = open_study(base[0]).plan, open_study("params/demo.yaml").plan.costs("paper")
    embeddings = plan.embeddings("student", "vehicles", 0, "vehicles", "query")
    for unit in (plan.costs(), paper, embeddings):
        assert "reidlib.training.Machine" in unit.dependencies["code"], unit.label
    assert {"reidlib.gates.Soft", "reidlib.gates.Top1"} <= set(paper.dependencies["code"])


# weights


def test_weights_are_known_by_content_not_by_name(base, tmp_path, monkeypatch):
    root = base[0].parents[1]
    monkeypatch.setenv("REIDLIB_WEIGHTS", str(tmp_path))
    model = timm.create_model("test_efficientnet", num_classes=0)
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    key = lambda file: open_study(file).plan.network("student", "vehicles", 0).key  # noqa: E731
    write = lambda weights: tiny.write(  # noqa: E731
        root, "weights", {"student.encoder": {"name": "timm:test_efficientnet", "weights": weights}}
    )  # noqa: E731
    before = key(write("a.safetensors"))
    assert key(write("b.safetensors")) == before, "another name"
    assert base[1][f"student {VEHICLES}"] != before, "random weights"
    save_file({name: value + 1 for name, value in model.state_dict().items()}, tmp_path / "a.safetensors")
    assert key(write("a.safetensors")) != before, "the same path, other weights"


def cached(folder, repository, revision):
    file = folder / f"models--{repository.replace('/', '--')}" / "refs" / "main"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(revision)


@pytest.mark.parametrize(
    "name, tag, repository",
    [
        ("open_clip:ViT-B-16-quickgelu", "openai", "timm/vit_base_patch16_clip_224.openai"),
        ("align:kakaobrain/align-base", "hub", "kakaobrain/align-base"),
        ("timm:mobilenetv4_conv_small", "hub", "timm/mobilenetv4_conv_small.e2400_r224_in1k"),
    ],
)
def test_a_tags_weights_are_its_revision_in_the_hubs_cache(tmp_path, monkeypatch, name, tag, repository):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    params = EncoderParams(name=name, weights=tag)
    with pytest.raises(WeightsError, match=f"{repository} is not in the cache"):
        weights_identity(params, None)
    cached(tmp_path, repository, "abc\n")
    assert weights_identity(params, None) == f"{repository}@abc"
    cached(tmp_path, repository, "def\n")
    assert weights_identity(params, None) == f"{repository}@def"


def test_a_local_folders_weights_are_its_files(tmp_path):
    (tmp_path / "model.safetensors").write_text("1")
    params, found = EncoderParams(name=f"align:{tmp_path}", weights="hub"), []
    for content in ("1", "2"):
        (tmp_path / "model.safetensors").write_text(content)
        found.append(weights_identity(params, None))
    assert found[0] != found[1]


@pytest.mark.parametrize("name, weights", [("open_clip:ViT-B-16", "none"), ("timm:no_such_network", "hub")])
def test_a_tag_that_no_library_knows_is_refused(tmp_path, monkeypatch, name, weights):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=f"no weights '{weights}' of {name}.*none known there is not in the cache"):
        weights_identity(EncoderParams(name=name, weights=weights), None)


def test_a_stage_that_mixed_training_has_no_epochs_for_takes_its_pictures_with_it(tmp_path):
    stages = [{"epochs": 1, "size": [16, 16]}, {"epochs": 2, "size": [24, 24]}]
    recipe = tiny.RECIPE | {"epochs": 4, "stages": stages}
    plan = open_study(tiny.write(tmp_path, changes={"experts.clip.recipe": recipe})).plan
    alone, mixed = (plan.network("expert:clip", name, 0) for name in ("vehicles", "vehicles+people"))
    for unit in (alone, mixed):
        sizes = [tuple(stage.size) for stage in unit.inputs["recipe"].stages]
        assert [unit.parents[f"pixels {i}"].inputs["size"] for i in range(len(sizes))] == sizes
        assert f"pixels {len(sizes)}" not in unit.parents
    assert len(alone.inputs["recipe"].stages) == 2 and len(mixed.inputs["recipe"].stages) == 1


@pytest.mark.parametrize("counted, epochs", [(None, (6, 6, 4)), ("vehicles", (6, 12, 4)), ("people", (3, 6, 2))])
def test_epochs_are_those_of_the_data_set_that_counts_them(tmp_path, counted, epochs):
    """There are eight vehicles and four people, with four pictures each: half as many steps an epoch."""
    few = tiny.BUILTIN | {"domain": "people", "train_ids": 4}
    changes = {"datasets.people.builtin": few, "student.recipe": tiny.RECIPE | {"epochs": 6, "p": 2}}
    plan = open_study(tiny.write(tmp_path, changes=changes, epochs_of=counted)).plan
    for name, wanted in zip(("vehicles", "people", "vehicles+people"), epochs, strict=True):
        assert plan.network("student", name, 0).inputs["recipe"].epochs == wanted, name


def test_epochs_can_be_those_of_a_set_that_is_trained_on_in_the_mixture_alone(tmp_path):
    changes = {"epochs_of": "people", "datasets.people.test_only": True, "mixed": ["vehicles", "people"]}
    changes |= {"datasets.people.builtin": tiny.BUILTIN | {"domain": "people", "train_ids": 4}}
    changes |= {"student.recipe": tiny.RECIPE | {"epochs": 6, "p": 2}}
    plan = open_study(tiny.write(tmp_path, changes=changes)).plan
    assert plan.network("student", "vehicles", 0).inputs["recipe"].epochs == 3


@pytest.mark.parametrize("name, why", [("peopel", "did you mean 'people'"), ("people", "nothing is trained on 'people'")])
def test_epochs_are_of_a_data_set_that_is_trained_on(tmp_path, name, why):
    changes = {"epochs_of": name, "datasets.people.test_only": True, "mixed": None}
    with pytest.raises(ParamsError, match=why):
        open_study(tiny.write(tmp_path, changes=changes))


def test_a_student_of_another_size_may_have_a_recipe_of_its_own(tmp_path):
    """And under a teacher the one of all taught students, where there is one."""

    def rates(**more: dict) -> list[float]:
        size = tiny.TREE["ablations"]["sizes"]["vit"] | {"recipe": tiny.RECIPE | {"lr": 0.02}}
        plan = open_study(tiny.write(tmp_path, changes={"ablations.sizes.vit": size, **more})).plan
        methods = ("student", "student/size=vit", "student+kd:moe/size=vit")
        units = [plan.network(method, "vehicles", 0) for method in methods]
        assert units[1].keys["recipe"] == "ablations.sizes.vit.recipe"
        assert set(units[1].inputs["encoder"].model_dump()) == set(units[0].inputs["encoder"].model_dump())
        return [unit.inputs["recipe"].lr for unit in units]

    assert rates() == [0.001, 0.02, 0.02]
    assert rates(**{"student.taught": tiny.RECIPE | {"lr": 0.04}}) == [0.001, 0.02, 0.04]
    longer = {"student.taught": tiny.RECIPE | {"epochs": 2}, "student.recipe": tiny.RECIPE | {"epochs": 2}}
    with pytest.raises(
        ParamsError, match="ablations.sizes.vit.recipe has 1 epochs and student.taught 2: give both as many"
    ):
        rates(**longer)
