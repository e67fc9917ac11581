"""Params files: each shipped one loads, and each kind of mistake is named with its place and its remedy."""

from pathlib import Path

import pytest
import timm
import yaml

from reidlib.params import ParamsError, find, load
from reidlib.study import open_study

FOLDER = Path(__file__).parents[1] / "params"


def tree():
    recipe = {"epochs": 1, "p": 4, "k": 2, "lr": 0.001}
    miniature = {"vision": {}, "text": {}, "embed_dim": 8}
    builtin = {"domain": "people", "train_ids": 8, "test_ids": 4, "cameras": 2, "images": 2}
    return {
        "title": "t",
        "seeds": [0],
        "datasets": {"people": {"layout": "market1501", "size": [32, 32], "builtin": builtin}},
        "experts": {
            "clip": {
                "encoder": {"name": "open_clip:miniature", "size": [32, 32], "miniature": miniature},
                "recipe": dict(recipe),
            },
            "other": {"encoder": {"name": "timm:test_vit"}, "recipe": dict(recipe)},
        },
        "moe": {"gates": ["soft"], "width": 16, "recipe": dict(recipe)},
        "student": {"encoder": {"name": "timm:test_efficientnet"}, "recipe": dict(recipe)},
        "distillation": {"teachers": ["clip", "moe"]},
        "pretraining": {"pictures": 8, "epochs": 1, "batch": 4},
    }


def put(tree, where, value):
    *path, last = where.split(".")
    for key in path:
        tree = tree[key]
    tree[last] = value


@pytest.fixture
def refused(tmp_path):
    """What load says of the tree after the changes; it must refuse it."""

    def refused(changes: dict, without: str = "", overrides=()) -> str:
        content = tree()
        for where, value in changes.items():
            put(content, where, value)
        content.pop(without, None)
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(content))
        with pytest.raises(ParamsError) as error:
            load(file, overrides)
        assert str(file) in str(error.value) or overrides
        return str(error.value)

    return refused


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_each_shipped_study_loads(file):
    assert load(file).title


def test_weights_that_are_asked_of_the_hub_are_there():
    """In the locked timm: a name without weights would be refused on every machine, a network or not."""
    for file in sorted(FOLDER.glob("*.yaml")):
        for place, encoder in load(file).encoders.items():
            if encoder.source == "timm" and encoder.weights == "hub":
                assert timm.get_pretrained_cfg(encoder.name.partition(":")[2]).has_weights, f"{file.name}: {place}"


def test_the_tree_these_tests_break_is_sound(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree()))
    study = load(tmp_path / "study.yaml")
    assert study.experts["clip"].recipe.margin == 0.3
    assert study.datasets["people"].size == (32, 32)


@pytest.mark.parametrize(
    "where, nearest",
    [
        ("titel", "title"),
        ("student.recipe.lrr", "lr"),
        ("experts.clip.encoder.wieghts", "weights"),
        ("datasets.people.builtin.train_id", "train_ids"),
        ("student.recipe.augmentation.flipp", "flip"),
        ("profiling.run", "runs"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(refused, where, nearest):
    first = where.split(".")[0]
    changes = {first: {}} if first == "profiling" else {}
    if "augmentation" in where:
        changes["student.recipe.augmentation"] = {}
    message = refused(changes | {where: 1})
    assert f"{where}: unknown key; did you mean '{nearest}'?" in message


def test_an_unknown_key_near_none_lists_the_valid_ones(refused):
    assert "moe.zzz: unknown key; valid: gates, width, balance, recipe" in refused({"moe.zzz": 1})


@pytest.mark.parametrize(
    "where, value",
    [
        ("seeds", 3),
        ("student.recipe.epochs", "many"),
        ("datasets.people.size", [32]),
        ("student.encoder", "timm:test_vit"),
        ("experts.clip.recipe", None),
    ],
)
def test_a_wrong_type_is_named_with_what_was_given(refused, where, value):
    message = refused({where: value})
    assert f"- {where}" in message and f"(given: {value!r})" in message or "Field required" in message


@pytest.mark.parametrize(
    "where, value",
    [
        ("student.recipe.epochs", 0),
        ("student.recipe.lr", -1e-3),
        ("student.recipe.lr", float("inf")),
        ("student.recipe.layer_decay", 1.5),
        ("student.recipe.label_smoothing", 1.0),
        ("student.recipe.margin", 0),
        ("student.recipe.p", 1),
        ("datasets.people.size", [32, 0]),
        ("student.encoder.name", "clip-vit"),
        ("moe.gates", []),
        ("seeds", [-1]),
        ("precision", "fp64"),
        ("threads", 0),
        ("distillation.temperature", 0),
        ("distillation.terms", {}),
        ("distillation.terms", {"logit": -1}),
        ("distillation.terms", {"logit": 0, "embedding": 0}),
        ("moe.balance", {"soft": -1}),
    ],
)
def test_an_impossible_value_is_named(refused, where, value):
    assert f"- {where}" in refused({where: value})


@pytest.mark.parametrize(
    "where, twice", [("distillation.teachers", ["moe", "clip", "moe"]), ("moe.gates", ["soft", "soft"])]
)
def test_what_would_be_counted_twice_is_refused(refused, where, twice):
    message = refused({where: twice})
    assert where in message and "name each once" in message


def test_a_study_without_a_teacher_is_refused(refused):
    assert "distillation.teachers: name one at least" in refused({"distillation.teachers": []})


def test_repeated_seeds_are_refused_because_they_would_narrow_the_intervals(refused):
    assert "seeds" in refused({"seeds": [0, 1, 0]})


def test_a_missing_key_is_named(refused):
    assert "- student: Field required" in refused({}, without="student")


def test_all_mistakes_are_in_one_message(refused):
    message = refused({"titel": 1, "student.recipe.lr": 0, "moe.width": "wide"})
    assert "3 thing(s)" in message
    assert all(f"- {where}" in message for where in ("titel", "student.recipe.lr", "moe.width"))


def test_an_unknown_teacher_is_named_with_the_nearest(refused):
    assert "best_expert.peple: there is no 'peple'; did you mean 'people'?" in refused({"best_expert": {"peple": "clip"}})
    assert "best_expert.people: there is no 'klip'; did you mean 'clip'?" in refused({"best_expert": {"people": "klip"}})
    message = refused({"distillation.teachers": ["clipp"]})
    assert "'clipp' is no teacher; did you mean 'clip'?" in message


@pytest.mark.parametrize("teacher, gates", [("moe", ["uniform"]), ("uniform", ["soft"])])
def test_a_teacher_needs_its_gate(refused, teacher, gates):
    assert "moe.gates must hold" in refused({"distillation.teachers": [teacher], "moe.gates": gates})


@pytest.mark.parametrize("change", [{"datasets.people.root": "Market"}, {"datasets.people.builtin": None}])
def test_a_data_set_is_either_real_or_drawn(refused, change):
    message = refused(change)
    assert "- datasets.people: give either 'root'" in message


def test_a_miniature_needs_pretraining_and_a_size(refused):
    assert "'pretraining' must say" in refused({}, without="pretraining")
    assert "needs 'size'" in refused({"experts.clip.encoder.size": None})


@pytest.mark.parametrize(
    "change",
    [
        {"experts.other.encoder.miniature": {"vision": {}, "text": {}}, "experts.other.encoder.size": [32, 32]},
        {"student.encoder": {"name": "open_clip:x", "size": [32, 32], "miniature": {"vision": {}, "text": {}}}},
    ],
)
def test_only_experts_of_clip_or_align_can_be_miniatures(refused, change):
    assert "miniature" in refused(change)


@pytest.mark.parametrize("where", ["student", "moe", "experts.other"])
def test_a_batch_of_more_identities_than_are_drawn_is_refused_before_any_training(refused, where):
    message = refused({f"{where}.recipe.p": 9})
    assert f"{where}.recipe.p is 9" in message and "people" in message and "8" in message


def test_a_gate_sees_no_pictures_of_another_size(refused):
    more = {"epochs": 2, "stages": [{"epochs": 1, "size": [8, 8]}]}
    assert "- moe: recipe.stages is for networks that see pictures" in refused(
        {"moe.recipe": tree()["moe"]["recipe"] | more}
    )


def test_pretraining_on_less_than_a_batch_is_refused(refused):
    assert "pretraining" in refused({"pretraining.pictures": 3})


@pytest.mark.parametrize("name", ["uniform", "moe", "a/b", "a:b"])
def test_an_expert_can_not_have_a_name_that_means_something_else(refused, name):
    content = tree()["experts"]
    assert name in refused({"experts": content | {name: content["other"]}})


def test_precision_no_is_what_yaml_takes_for_false(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree()) + "precision: no\n")
    assert load(tmp_path / "study.yaml").precision == "no"


def test_overrides_are_checked_like_the_file(tmp_path, refused):
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(tree()))
    study = load(tmp_path / "s.yaml", ["student.recipe.lr=0.5", "seeds=[3, 4]", "moe.gates=[soft, top1]"])
    assert study.student.recipe.lr == 0.5 and study.seeds == [3, 4] and study.moe.gates == ["soft", "top1"]
    assert "student.recipe.lrr: unknown key; did you mean 'lr'?" in refused({}, overrides=["student.recipe.lrr=1"])
    assert "write it key.key=value" in refused({}, overrides=["student.recipe.lr"])
    said = refused({}, overrides=["student.recipe.lr.x=1"])
    assert "override 'student.recipe.lr.x=1'" in said and "no mapping" in said
    assert "override 'seeds=[0'" in refused({}, overrides=["seeds=[0"])


def test_an_override_of_one_weight_leaves_the_others_at_their_defaults(tmp_path):
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(tree()))
    study = load(tmp_path / "s.yaml", ["distillation.terms.logit=2", "moe.balance.soft=0.5"])
    assert study.distillation.terms == {"logit": 2, "embedding": 1, "relational": 1}
    assert study.moe.balance == {"soft": 0.5, "top1": 0.01}
    assert load(tmp_path / "s.yaml").distillation.terms["logit"] == 1


def test_an_override_leaves_alone_what_shares_a_yaml_anchor(tmp_path):
    content = tree()
    content["moe"]["recipe"] = content["student"]["recipe"]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    assert "*id" in (tmp_path / "s.yaml").read_text()
    study = load(tmp_path / "s.yaml", ["moe.recipe.lr=0.5"])
    assert study.moe.recipe.lr == 0.5 and study.student.recipe.lr == 0.001


def test_a_missing_file_is_named_with_the_ones_there_are(tmp_path, monkeypatch):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "demo.yaml").write_text("{}")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    with pytest.raises(ParamsError, match="did you mean 'params/demo.yaml'"):
        load("params/dmo.yaml")
    with pytest.raises(ParamsError, match="there are|did you mean|valid"):
        load("elsewhere")
    assert find("params/demo.yaml") == tmp_path / "params" / "demo.yaml"


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "a mapping"), ("- 1", "a mapping"), ("a: [", "not readable as YAML"), ("? [a]\n: 1", "not readable as YAML"),
    ],
)  # fmt: skip
def test_what_is_no_mapping_is_refused(tmp_path, text, said):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ParamsError, match=said):
        load(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    "where, wrong, meant",
    [
        ("datasets.people.layout", "market", "market1501"),
        ("moe.gates", ["soft", "top-1"], "top1"),
        ("moe.balance", {"softt": 1}, "soft"),
        ("distillation.terms", {"relation": 1}, "relational"),
    ],
)
def test_a_layout_gate_or_term_that_no_table_has_is_named_with_the_nearest(tmp_path, where, wrong, meant):
    content = tree()
    put(content, where, wrong)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError) as error:
        open_study(tmp_path / "study.yaml")
    assert f"- {where}: there is no '" in str(error.value) and f"did you mean '{meant}'?" in str(error.value)


def test_an_ablation_of_a_term_without_weight_is_named_with_the_nearest(refused):
    ablations = {"datasets": ["people"], "terms": ["logit+relatonal"]}
    assert "'relatonal' has no weight in distillation.terms; did you mean 'relational'?" in refused(
        {"ablations": ablations}
    )


@pytest.mark.parametrize("of", [[1], [0, 2]])
def test_seeds_of_ablations_are_the_studys_and_the_first_among_them(refused, of):
    changes = {"seeds": [0, 1], "ablations": {"datasets": ["people"], "seeds": of}}
    assert "ablations.seeds: some of [0, 1], the first" in refused(changes)


@pytest.mark.parametrize("where", ["", "student:\n  "])
def test_a_doubled_key_is_refused_and_its_line_named(tmp_path, where):
    (tmp_path / "study.yaml").write_text(f"title: t\n{where}x: 1\n{'  ' * bool(where)}x: 2\n")
    with pytest.raises(ParamsError, match=rf"the key 'x' stands there twice(.|\n)*line {3 + bool(where)}"):
        load(tmp_path / "study.yaml")


def test_a_key_that_a_yaml_merge_brings_too_is_not_doubled(tmp_path):
    text = yaml.safe_dump({"base": tree()["student"]["recipe"]} | tree(), sort_keys=False)
    text = text.replace("base:", "x-base: &base") + "z: {<<: *base, lr: 0.5}\n"
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ParamsError) as error:  # of unknown keys alone
        load(tmp_path / "study.yaml")
    assert "2 thing(s)" in str(error.value) and "- z: unknown key" in str(error.value)
