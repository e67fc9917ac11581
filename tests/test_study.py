"""A whole study in miniature: every method is made, found again, and the same in whatever order it is made."""

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from reidlib import params
from reidlib.data import DataError
from reidlib.study import open_study

torch.set_num_threads(1)
RECIPE = {"epochs": 1, "p": 4, "k": 2, "lr": 0.001, "augmentation": {"pad": 2}}
BUILTIN = {"train_ids": 8, "test_ids": 4, "cameras": 2, "images": 2}
CLIP = {
    "embed_dim": 16,
    "vision": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text": {"layers": 1, "width": 16, "heads": 2},
}
ALIGN = {
    "vision": {"width_coefficient": 0.1, "depth_coefficient": 0.1},
    "text": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
}
TREE = {
    "title": "tiny",
    "seeds": [0],
    "device": "cpu",
    "datasets": {
        "vehicles": {"layout": "veri776", "size": [32, 32], "builtin": BUILTIN | {"domain": "vehicles"}},
        "people": {"layout": "market1501", "size": [32, 32], "builtin": BUILTIN | {"domain": "people"}},
    },
    "experts": {
        "clip": {"encoder": {"name": "open_clip:mini", "size": [32, 32], "miniature": CLIP}, "recipe": RECIPE},
        "align": {"encoder": {"name": "align:mini", "size": [32, 32], "miniature": ALIGN}, "recipe": RECIPE},
    },
    "moe": {
        "gates": ["soft", "top1", "uniform", "concat", "router"],
        "width": 48,
        "recipe": RECIPE,
        "router": {"encoder": {"name": "timm:test_byobnet"}, "recipe": RECIPE},
    },
    "student": {"encoder": {"name": "timm:test_efficientnet"}, "recipe": RECIPE},
    "distillation": {"teachers": ["clip", "align", "uniform", "moe"]},
    "ablations": {
        "datasets": ["vehicles"],
        "terms": ["logit", "embedding+relational"],
        "temperatures": [1],
        "online": True,
        "sizes": {"vit": {"name": "timm:test_vit", "size": [160, 160]}},
    },
    "mixed": True,
    "pretraining": {"pictures": 16, "epochs": 1, "batch": 8},
}


def write(root, **changes):
    file = root / "params" / "tiny.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(TREE | changes, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The study's params file and each method's evaluation, all made there."""
    file = write(tmp_path_factory.mktemp("study"))
    study = open_study(file)
    return file, {method: study.evaluate(method, "vehicles", 0) for method in study.methods}


def no_training(*args, **kwargs):
    pytest.fail(f"trained again: {kwargs.get('label')}")


def weights(study, folder):
    files = sorted((study.root / "artifacts").rglob(f"{folder}/*/weights.safetensors"))
    assert len(files) == 1
    return load_file(files[0])


def test_every_method_is_evaluated(made):
    assert list(made[1]) == [
        "pixels", "expert:clip", "expert:align", "moe:soft", "moe:top1", "moe:uniform", "moe:concat",
        "moe:router", "student", "student+kd:clip", "student+kd:align", "student+kd:uniform", "student+kd:moe",
    ]  # fmt: skip
    for method, result in made[1].items():
        assert 0 < result.mAP <= 1 and result.n_valid > 0, method
    assert len({result.mAP for result in made[1].values()}) > 3, "the methods can not all be the same"


def test_what_is_made_is_found_again_with_the_same_numbers(made, monkeypatch):
    file, results = made
    monkeypatch.setattr("reidlib.study.train", no_training)
    monkeypatch.setattr("reidlib.study.embed", no_training)
    study = open_study(file)
    for method, result in results.items():
        again = study.evaluate(method, "vehicles", 0)
        assert again.mAP == result.mAP and np.array_equal(again.ap, result.ap), method


def test_another_folder_gives_the_same_numbers_in_whatever_order_it_is_asked(made, tmp_path):
    study = open_study(write(tmp_path))
    study.evaluate("student+kd:moe", "people", 0)  # pretraining and another data set come first here
    for method in ["student+kd:moe", "moe:top1", "expert:align", "student"]:
        assert study.evaluate(method, "vehicles", 0).mAP == made[1][method].mAP, method
    theirs = open_study(made[0])
    for folder in ["expert-clip-vehicles-seed-0", "moe-soft-vehicles-seed-0", "student+kd-moe-vehicles-seed-0"]:
        ours, others = weights(study, folder), weights(theirs, folder)
        assert all(torch.equal(ours[name], others[name]) for name in others), folder


def test_embeddings_are_the_models_own(made):
    study = open_study(made[0])
    for method in ["expert:clip", "moe:soft", "moe:top1", "moe:concat", "moe:router", "student+kd:moe"]:
        model = study.model(method, "vehicles", 0)
        assert not model.training
        pixels = torch.from_numpy(np.array(study.pixels("vehicles", "query")))
        with torch.no_grad():
            expected = model(pixels).numpy()
        assert np.allclose(study.embeddings(method, "vehicles", 0), expected, atol=1e-4), method


def test_the_top1_gate_gives_what_the_chosen_expert_gives_alone(made):
    study, names = open_study(made[0]), list(TREE["experts"])
    where = {"train": "vehicles", "seed": 0, "part": "gallery"}
    chosen = study.gate_weights("top1", "vehicles", 0)[names].to_numpy().argmax(1)
    alone = np.stack([study.embeddings(f"moe:top1/expert={name}", **where) for name in names])
    assert not np.allclose(alone[0], alone[1])
    assert np.allclose(study.embeddings("moe:top1", **where), alone[chosen, np.arange(len(chosen))], atol=1e-5)
    assert study.origin("moe:top1/expert=clip", "vehicles", 0) == study.origin("moe:top1", "vehicles", 0)
    with pytest.raises(ValueError, match="'clop' is no expert of this study; it has clip, align"):
        study.embeddings("moe:top1/expert=clop", **where)


def test_a_teacher_says_what_its_model_says(made):
    study = open_study(made[0])
    pixels = torch.from_numpy(np.array(study.pixels("vehicles", "train")))
    for teacher, method in {"clip": "expert:clip", "moe": "moe:soft", "uniform": "moe:uniform"}.items():
        (cache, width), model = study.teacher(teacher, "vehicles", 0), study.model(method, "vehicles", 0)
        assert width == model.dim
        neck = model.neck if teacher == "clip" else model.fusion.neck
        for side, images in enumerate([pixels, pixels.flip(3)]):
            with torch.no_grad():
                embedding = model(images)
                assert np.allclose(cache.embedding[:, side], embedding, atol=1e-4)
                assert np.allclose(cache.logits[:, side], neck.classifier(embedding), atol=1e-4)


def test_the_online_teacher_says_the_same_of_a_picture_that_is_not_augmented(made):
    study = open_study(made[0])
    pixels = study.pixels("vehicles", "train")
    flipped = torch.arange(len(pixels)) % 2 == 0
    images = torch.from_numpy(np.array(pixels))
    images[flipped] = images[flipped].flip(3)
    for teacher in ("clip", "moe"):
        cached, online = (study.teacher(teacher, "vehicles", 0, how)[0] for how in ("cached", "online"))
        index = np.arange(len(pixels))
        for ours, theirs in zip(cached.says(index, flipped, images), online.says(index, flipped, images)):
            assert np.allclose(ours, theirs, atol=1e-4)
            assert not theirs.requires_grad


def test_the_router_runs_one_expert_a_picture_and_learns_from_the_top1_gate(made):
    study = open_study(made[0])
    model = study.model("moe:router", "vehicles", 0)
    pixels = torch.from_numpy(np.array(study.pixels("vehicles", "query")))
    seen = [[] for _ in model.experts]
    for expert, batches in zip(model.experts, seen):
        expert.register_forward_hook(lambda module, inputs, output, batches=batches: batches.append(len(inputs[0])))
    with torch.no_grad():
        choice = model.router(pixels).argmax(1)
        model(pixels)
    assert [sum(batches) for batches in seen] == [int((choice == i).sum()) for i in range(2)]
    assert "routing" in study.history("moe:router", "vehicles", 0)


def test_variants_differ_in_what_they_name_and_nothing_else(made):
    study = open_study(made[0])
    assert study.variants == {
        "terms": ["student+kd:moe/terms=logit", "student+kd:moe/terms=embedding+relational"],
        "temperature": ["student+kd:moe/temperature=1"],
        "teacher": ["student+kd:moe/teacher=online"],
        "size": ["student/size=vit", "student+kd:moe/size=vit"],
    }
    terms = study.history("student+kd:moe/terms=logit", "vehicles", 0)
    assert {"identity", "triplet", "logit"} <= set(terms) and not {"embedding", "relational"} & set(terms)
    terms = study.history("student+kd:moe/terms=embedding+relational", "vehicles", 0)
    assert {"embedding", "relational"} <= set(terms) and "logit" not in terms
    base = study.embeddings("student+kd:moe", "vehicles", 0)
    for method in ("student+kd:moe/temperature=1", "student+kd:moe/teacher=online"):
        assert not np.allclose(study.embeddings(method, "vehicles", 0), base), method
    assert np.array_equal(study.embeddings("student+kd:moe/temperature=4", "vehicles", 0), base), "4 is the default"
    vit = study.model("student/size=vit", "vehicles", 0)
    assert type(vit.encoder.network) is not type(study.model("student", "vehicles", 0).encoder.network)


def test_training_on_all_data_sets_at_once(made):
    study = open_study(made[0])
    assert study.mixed == "vehicles+people"
    whole, parts = study.dataset(study.mixed), [study.dataset(name) for name in ("vehicles", "people")]
    assert len(whole.train) == sum(len(part.train) for part in parts)
    assert study.identities(study.mixed) == sum(part.train["pid"].nunique() for part in parts)
    assert study.labels(study.mixed).max() == study.identities(study.mixed) - 1
    for test in ("vehicles", "people"):
        assert 0 < study.evaluate("student+kd:moe", study.mixed, 0, test).mAP <= 1
    weights = study.gate_weights("soft", study.mixed, 0)
    assert list(weights["domain"].unique()) == ["vehicles", "people"]


def test_what_methods_cost_can_be_measured_without_training(made):
    study = open_study(made[0])
    pictures = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    models = study.untrained(pictures)
    assert list(models) == ["expert:clip", "expert:align", "moe:soft", "moe:router", "student"]
    with torch.no_grad():
        choice = models["moe:router"].router(torch.from_numpy(pictures)).argmax(1)
    assert choice.bincount().tolist() == [4, 4]
    trained = study.model("moe:soft", "vehicles", 0).experts
    assert sum(p.numel() for e in trained for p in e.encoder.parameters()) == sum(
        p.numel() for e in models["moe:soft"].experts for p in e.encoder.parameters()
    )


def test_where_a_result_was_made_is_kept(made):
    study = open_study(made[0])
    origin = study.origin("student+kd:moe", "vehicles", 0)
    assert origin["unit"].startswith("student+kd-moe-vehicles-seed-0/") and origin["seconds"] > 0
    assert study.origin("pixels", "vehicles", 0) is None and study.origin("moe:concat", "vehicles", 0) is None


def test_only_what_depends_on_a_change_is_trained_again(made, monkeypatch):
    trained = []

    def spy(model, folder, *, label, **rest):
        trained.append(label)
        return train(model, folder, label=label, **rest)

    from reidlib.training import train

    monkeypatch.setattr("reidlib.study.train", spy)
    study = open_study(made[0], ["moe.recipe.lr=0.002"])
    study.evaluate("student", "vehicles", 0)
    study.evaluate("student+kd:clip", "vehicles", 0)
    assert trained == []
    study.evaluate("student+kd:moe", "vehicles", 0)
    assert trained == ["moe:soft vehicles seed 0", "student+kd:moe vehicles seed 0"]
    del trained[:]
    open_study(made[0], ["distillation.temperature=2"]).evaluate("student+kd:clip", "vehicles", 0)
    assert trained == ["student+kd:clip vehicles seed 0"]
    del trained[:]
    open_study(made[0], ["pretraining.epochs=2"]).evaluate("expert:clip", "vehicles", 0)
    assert trained == ["pretrain clip", "expert:clip vehicles seed 0"]


def test_another_seed_and_another_domain_are_units_of_their_own(made):
    study = open_study(made[0])
    across = study.evaluate("expert:clip", "vehicles", 0, test="people")
    assert 0 < across.mAP <= 1
    assert across.mAP == study.evaluate("expert:clip", "vehicles", 0, test="people").mAP
    other = study.embeddings("expert:clip", "vehicles", 1)
    assert not np.allclose(other, study.embeddings("expert:clip", "vehicles", 0))


def test_validation_holds_training_identities_out_and_leaves_the_test_set_alone(made):
    study, whole = open_study(made[0], ["experts.clip.recipe.epochs=2"], validation=0.5), open_study(made[0])
    assert study.identities("vehicles") == 4
    held = set(study.dataset("vehicles").query["pid"])
    assert held and not held & set(study.dataset("vehicles").train["pid"])
    assert held <= set(whole.dataset("vehicles").train["pid"])
    assert study.fingerprint("vehicles") != whole.fingerprint("vehicles")
    assert study.evaluate("expert:clip", "vehicles", 0).n_valid > 0


def test_the_gates_weights_come_with_the_pictures_they_are_for(made):
    frame = open_study(made[0]).gate_weights("soft", "vehicles", 0)
    assert {"path", "pid", "camid", "clip", "align"} <= set(frame.columns)
    assert np.allclose(frame["clip"] + frame["align"], 1)
    assert len(frame) == len(open_study(made[0]).dataset("vehicles").gallery)


def test_history_is_there_for_what_is_trained(made):
    study = open_study(made[0])
    assert list(study.history("student+kd:moe", "vehicles", 0)["epoch"]) == [1]
    assert "balance" in study.history("moe:soft", "vehicles", 0)
    assert "contrastive" in study.pretraining_history("align")
    with pytest.raises(ValueError, match="moe:concat"):
        study.history("moe:concat", "vehicles", 0)


@pytest.mark.parametrize(
    "method, named, instead",
    [
        ("expert:clop", "'clop'", "expert:clip"),
        ("moe:hard", "'hard'", "soft"),
        ("student+kd:nobody", "'nobody'", "expert:clip"),
        ("oracle", "'oracle'", "expert:clip"),
        ("student+kd:moe/heat=1", "heat=1", "temperature=1"),
        ("student/size=huge", "size=huge", "size=vit"),
    ],
)
def test_an_unknown_method_is_named_with_those_there_are(made, method, named, instead):
    with pytest.raises(ValueError) as error:
        open_study(made[0]).evaluate(method, "vehicles", 0)
    assert named in str(error.value) and instead in str(error.value)


def test_an_unknown_data_set_is_named_with_those_there_are(made):
    with pytest.raises(DataError, match="'cars'.*vehicles"):
        open_study(made[0]).dataset("cars")


def test_a_study_that_can_run_has_nothing_to_mend(made):
    assert open_study(made[0]).check() == []


def test_check_names_missing_data_and_weights(tmp_path, monkeypatch):
    monkeypatch.delenv("REIDLIB_DATA", raising=False)
    monkeypatch.delenv("REIDLIB_WEIGHTS", raising=False)
    datasets = TREE["datasets"] | {"market": {"layout": "market1501", "size": [32, 32], "root": "Market-1501"}}
    encoder = {"name": "timm:test_vit", "weights": "none.safetensors"}
    experts = TREE["experts"] | {"vit": {"encoder": encoder, "recipe": RECIPE}}
    problems = open_study(write(tmp_path, datasets=datasets, experts=experts)).check()
    assert len(problems) == 2
    assert "'market'" in problems[0] and str(tmp_path / "data" / "Market-1501") in problems[0]
    assert "vit" in problems[1] and str(tmp_path / "weights" / "none.safetensors") in problems[1]


def test_check_names_a_miniature_that_can_not_be_built(tmp_path):
    broken = {**ALIGN, "vision": {"width_coeficient": 0.1}}
    align = {"encoder": {"name": "align:mini", "size": [32, 32], "miniature": broken}, "recipe": RECIPE}
    problems = open_study(write(tmp_path, experts=TREE["experts"] | {"align": align})).check()
    assert len(problems) == 1 and "did you mean 'width_coefficient'" in problems[0]


def test_a_params_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(params.ParamsError, match="none.yaml"):
        open_study(tmp_path / "params" / "none.yaml")
