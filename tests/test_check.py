"""What `make study` looks for before anything is trained: each fault by its name, and none where all is well."""

import http.server
import importlib.util
import logging
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
import timm
import tiny
import torch
from PIL import Image
from safetensors.torch import save_file

from reidlib import check
from reidlib.sources import PROJECT
from reidlib.study import open_study
from reidlib.weights import WeightsError


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder with real pictures: those that were drawn of people, as if they were photographs."""
    study = open_study(tiny.write(tmp_path_factory.mktemp("drawn")))
    return study.dataset("people").root


@pytest.fixture
def problems(tmp_path, monkeypatch):
    """problems({...}, changes) of the smallest study with other values; nothing may be trained to know them."""
    monkeypatch.setattr("reidlib.making.train", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.delenv("REIDLIB_DATA", raising=False)
    monkeypatch.delenv("REIDLIB_WEIGHTS", raising=False)
    return lambda **changes: check.problems(open_study(tiny.write(tmp_path, changes=changes)))


def market(people, tmp_path):
    """The changes that add a data set of real pictures, which lie in tmp_path/data/market."""
    shutil.copytree(people, tmp_path / "data" / "market")
    return {"datasets.market": {"layout": "market1501", "size": [32, 32], "root": "market"}}


def test_a_study_that_can_run_has_nothing_to_mend(problems, people, tmp_path):
    assert problems(**market(people, tmp_path)) == []


def test_a_set_for_testing_alone_needs_no_training_pictures(problems, people, tmp_path):
    shutil.copytree(people, tmp_path / "data" / "market")
    split = {"query": "query", "bounding_box_test": "gallery"}
    files = [file for folder in split for file in sorted((people / folder).glob("*_c*.jpg"))]
    rows = [
        f"{f.relative_to(people)},{int(f.name.split('_')[0])},{f.name.split('_c')[1][0]},{split[f.parent.name]}"
        for f in files
    ]
    (tmp_path / "data" / "market" / "set.csv").write_text("\n".join(["path,pid,camid,split", *rows]) + "\n")
    market = {"layout": "csv", "size": [32, 32], "root": "market"}
    assert problems(**{"datasets.market": market | {"test_only": True}}) == []
    assert "train has no images" in problems(**{"datasets.market": market})[0]


def test_missing_data_and_a_missing_router_weight_are_named(problems, tmp_path):
    found = problems(**{
        "datasets.market": {"layout": "market1501", "size": [32, 32], "root": "Market-1501"},
        "moe.router.encoder": {"name": "timm:test_byobnet", "weights": "none.safetensors"},
    })  # fmt: skip
    assert len(found) == 2
    assert "'market'" in found[0] and str(tmp_path / "data" / "Market-1501") in found[0]
    assert found[1].startswith("moe.router: ") and str(tmp_path / "weights" / "none.safetensors") in found[1]


@pytest.mark.parametrize(
    "where, encoder, said",
    [
        ("ablations.sizes.vit", {"name": "timm:mobilnetv2_100"}, "mobilnetv2_100"),
        ("experts.clip.encoder", {"name": "open_clip:ViT-B-61"}, "ViT-B-61"),
        ("student.encoder", {"name": "timm:test_vit", "weights": "none.pt"}, "none.pt"),
        (
            "experts.align.encoder.miniature",
            tiny.ALIGN | {"vision": {"width_coeficient": 0.1}},
            "did you mean 'width_coefficient'",
        ),
    ],
)
def test_a_network_that_can_not_be_built_is_named_with_its_place(problems, where, encoder, said):
    found = problems(**{where: encoder})
    place = where.removesuffix(".miniature").removesuffix(".encoder")
    assert len(found) == 1 and found[0].startswith(f"{place}: ") and said in found[0]


def test_a_corrupt_weight_file_is_named_and_that_it_must_be_fetched_again(problems, tmp_path):
    (tmp_path / "weights").mkdir()
    save_file(timm.create_model("test_efficientnet", num_classes=0).state_dict(), tmp_path / "weights" / "w.safetensors")
    change = {"student.encoder": {"name": "timm:test_efficientnet", "weights": "w.safetensors"}}
    assert problems(**change) == []
    content = (tmp_path / "weights" / "w.safetensors").read_bytes()
    (tmp_path / "weights" / "w.safetensors").write_bytes(content[: len(content) // 2])
    (found,) = problems(**change)
    assert (
        found.startswith("student: ") and str(tmp_path / "weights" / "w.safetensors") in found and "fetch it again" in found
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(problems):
    (found,) = problems(device="cuda")
    assert found == "device: cuda, but torch finds no GPU here; set device to auto or cpu"


def test_a_set_with_one_camera_is_named(problems, people, tmp_path):
    change = market(people, tmp_path)
    for part in ("query", "bounding_box_test"):
        for file in (tmp_path / "data" / "market" / part).iterdir():
            if "_c1" not in file.name:
                file.unlink()
    (found,) = problems(**change)
    assert "'market'" in found and "for all images are of camera 1" in found


def test_a_truncated_picture_is_named(problems, people, tmp_path):
    change = market(people, tmp_path)
    file = min((tmp_path / "data" / "market" / "bounding_box_test").iterdir())
    Image.effect_noise((64, 128), 50).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[:1500])
    (found,) = problems(**change)
    assert "'market'" in found and str(file) in found and "truncated" in found


def test_a_batch_of_more_identities_than_a_real_set_has_is_named(problems, people, tmp_path):
    change = market(people, tmp_path) | {
        "datasets.vehicles": None,
        "datasets.people": None,
        "mixed": None,
        "ablations": None,
    }
    change |= {
        "pretraining": None,
        "experts.clip.encoder": {"name": "timm:test_vit"},
        "experts.align.encoder": {"name": "timm:test_vit"},
    }
    (found,) = problems(**change, **{"moe.router.recipe": tiny.RECIPE | {"p": 9}})
    assert found == "moe.router.recipe.p is 9, but data set 'market' has 8 training identities"


def test_several_faults_are_all_named(problems):
    found = problems(**{"student.encoder": {"name": "timm:a"}, "moe.router.encoder": {"name": "timm:b"}})
    assert len(found) == 2


def test_weights_that_load_but_can_not_be_told_from_others_are_named(problems, monkeypatch):
    def unknown(*args):
        raise WeightsError("which weights are these?")

    monkeypatch.setattr("reidlib.plan.weights_identity", unknown)
    assert problems() == ["which weights are these?"]


# scripts


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", PROJECT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_says_all_of_it_and_fails(tmp_path, monkeypatch, capsys):
    module = script("check")
    monkeypatch.setattr(module, "_offline_if_cut_off", lambda: None)
    main = module.main
    assert main(str(tiny.write(tmp_path))) == 0
    said = capsys.readouterr().out
    assert "in order" in said and "data set 'people': gallery: " in said
    assert main(str(tiny.write(tmp_path, changes={"student.encoder": {"name": "timm:a"}}))) == 1
    assert "tiny can't run: student: " in capsys.readouterr().err
    assert main(str(tiny.write(tmp_path, changes={"moe.balance": {"softt": 1}}))) == 1
    assert "did you mean 'soft'" in capsys.readouterr().err
    assert main(str(tiny.write(tmp_path, changes={"plugins": ["none.py"]}))) == 1
    assert "none.py" in capsys.readouterr().err


@pytest.fixture
def web(monkeypatch):
    """A server on this machine; no setting of the hub's or of proxies is left."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args):
            pass

    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    "settings, offline",
    [
        ({"HF_ENDPOINT": "{web}/mirror"}, False),  # a mirror
        ({"HF_ENDPOINT": "http://hub.invalid", "http_proxy": "{web}"}, False),  # a proxy
        ({"HF_ENDPOINT": "http://hub.invalid"}, True),
        ({"HF_ENDPOINT": "no address"}, True),
    ],
)
def test_the_hub_is_asked_where_it_is_to_be_had(web, monkeypatch, settings, offline):
    for name, value in settings.items():
        monkeypatch.setenv(name, value.format(web=web))
    script("check")._offline_if_cut_off()
    assert (os.environ.pop("HF_HUB_OFFLINE", None) == "1") == offline


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """clean(study) in a project of three units: a and b have one each, and one is both's."""
    module = script("clean")
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    for study, unit in (("a", "1"), ("a", "both"), ("b", "2"), ("b", "both")):
        folder = tmp_path / "artifacts" / "units" / "kind" / unit
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "unit.json").write_text("{}")
        link = tmp_path / "artifacts" / study / "units" / f"label-{unit}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path("../../units/kind") / unit)
    (tmp_path / "units").mkdir()  # the project's, not an artifact
    return module.main, lambda: {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("study", ["", ".", "..", "units", "none", "a/", "../artifacts/a", "*"])
def test_clean_without_a_studys_name_removes_nothing_and_fails(clean, capsys, study):
    main, files = clean
    before = files()
    assert main(study) == 1 and files() == before
    assert "STUDY=" in capsys.readouterr().err


def test_clean_of_one_study_leaves_what_another_one_has(clean):
    main, files = clean
    assert main("a") == 0
    assert {name for name in files() if "artifacts" in name} == {
        "artifacts", "artifacts/units", "artifacts/units/kind", "artifacts/b", "artifacts/b/units", "artifacts/b/units/label-2",
        "artifacts/b/units/label-both", *(f"artifacts/units/kind/{u}{f}" for u in ("2", "both") for f in ("", "/unit.json")),
    }  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """prune(*options) in a project with one study, of which a student was trained with two recipes, one of them today's."""
    module = script("prune")
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    for epochs in (2, 1):
        changes = {"student.recipe": tiny.RECIPE | {"epochs": epochs}, "ablations": None}
        study = open_study(tiny.write(tmp_path, changes=changes))
        study.store.make(study.plan.network("student", "vehicles", 0))
    return module.main, study


def test_prune_says_what_no_study_asks_for_and_removes_it_when_it_is_told_to(project, capsys):
    prune, study = project
    wanted = study.store.folder(study.plan.network("student", "vehicles", 0))
    [other] = [folder for folder in wanted.parent.iterdir() if folder != wanted]
    assert prune() == 0 and other.exists()
    said = capsys.readouterr().out
    assert (
        re.search(r"^ +1 units of the kind embedder +\d+\.\d MB$", said, re.MULTILINE) and "1 units are in no study" in said
    )
    assert prune("--yes") == 0
    assert wanted.exists() and not other.exists() and list(wanted.parents[1].glob("pixels/*"))
    capsys.readouterr()
    assert prune() == 0 and "0 units are in no study" in capsys.readouterr().out


def test_prune_leaves_what_a_study_has_made_that_can_not_be_opened(project, capsys):
    prune, study = project
    file = study.root / "params" / "tiny.yaml"
    file.write_text(file.read_text().replace("seeds:", "seedz:"))
    assert prune("--yes") == 0
    assert study.store.state(study.plan.network("student", "vehicles", 0))[0] == "finished"
    assert "tiny.yaml can't be opened, so all " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["units", "drawn"])
def test_a_study_is_not_called_as_a_folder_of_all_studies(tmp_path, name):
    with pytest.raises(ValueError, match=f"artifacts/{name} is taken"):
        open_study(tiny.write(tmp_path, name=name))


@pytest.mark.parametrize("folder", ["../elsewhere", "a/../../b", "/tmp/a"])
def test_shipped_networks_lie_in_the_project(tmp_path, folder):
    with pytest.raises(ValueError, match="shipped: "):
        open_study(tiny.write(tmp_path, shipped=folder))


def test_a_disk_that_can_not_hold_the_decoded_pictures_is_named_before_they_are_decoded(problems, monkeypatch):
    monkeypatch.setattr(check.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    monkeypatch.setattr(check.making, "load_pixels", lambda *args: pytest.fail("decoded all the same"))
    said = "data set 'vehicles': its decoded pictures take 0.0 GB, and 0.0 are free"
    assert any(problem.startswith(said) for problem in problems())


def test_a_picture_that_is_trained_on_and_tested_with_is_reported(people, tmp_path):
    folder = tmp_path / "people"
    shutil.copytree(people, folder)
    first = lambda part: sorted(next(folder.rglob(part)).glob("*.jpg"))  # noqa: E731
    train, query = first("bounding_box_train"), first("query")
    gallery = [file for file in first("bounding_box_test") if file.name[:4] == query[0].name[:4]]
    other = next(file for file in gallery if file.name[6] != query[0].name[6])  # of the same person, in another camera
    shutil.copy(query[0], other)
    shutil.copy(train[0], query[1])
    shutil.copytree(folder, tmp_path / "hard")
    shutil.rmtree(next((tmp_path / "hard").rglob("bounding_box_train")))  # for testing alone, it needs none
    dataset = {"layout": "market1501", "size": [32, 32], "root": str(folder)}
    hard = {**dataset, "root": str(tmp_path / "hard"), "test_only": True}
    study = open_study(tiny.write(tmp_path, changes={"datasets.people": dataset, "datasets.hard": hard}))
    twice = "1 queries have themselves, byte by byte, as a match in another camera: scores are too high"
    assert [said for said in check.oddities(study) if "byte by byte" in said] == [
        "data set 'people': 1 pictures of query and gallery are, byte by byte, in train too: scores are too high",
        f"data set 'people': {twice}",
        "data set 'hard': 1 pictures of query and gallery are, byte by byte, in people's train too: scores are too high",
        f"data set 'hard': {twice}",
    ]


def test_a_student_of_another_size_is_held_against_its_own_recipe(problems):
    odd = {"recipe": tiny.RECIPE | {"epochs": 2, "stages": [{"epochs": 1, "size": [24, 24]}]}}  # no multiple of 16
    vit = tiny.TREE["ablations"]["sizes"]["vit"]
    assert problems(**{"student.recipe": odd["recipe"], "ablations.sizes.vit": vit | {"recipe": tiny.RECIPE}}) == []
    found = problems(**{"ablations.sizes.vit": vit | odd})
    assert len(found) == 1 and found[0].startswith("ablations.sizes.vit: ") and "24" in found[0]
    found = problems(**{"student.taught": odd["recipe"] | {"epochs": 1 + 1}, "student.recipe.epochs": 2})
    assert [line.partition(":")[0] for line in found] == ["ablations.sizes.vit"], "taught it has the student's"


@pytest.mark.parametrize(
    "epochs, said", [(7, []), (13, ["student.recipe.stages: the network's own size begins after 13 of 15 epochs"])]
)
def test_a_size_that_comes_when_the_learning_rate_is_spent_is_told(tmp_path, epochs, said):
    recipe = tiny.RECIPE | {"epochs": 15, "stages": [{"epochs": epochs, "size": [16, 16]}]}
    changes = {"student.recipe": recipe}
    told = check.oddities(open_study(tiny.write(tmp_path, changes=changes)))
    assert [line.partition(", at")[0] for line in told if line.startswith("student")] == said


def test_a_mixture_too_narrow_to_start_as_the_plain_average_is_told(tmp_path):
    told = lambda width: [  # noqa: E731
        line
        for line in check.oddities(open_study(tiny.write(tmp_path, changes={"moe.width": width})))
        if "moe.width" in line
    ]
    dims = tiny.TREE["moe"]["width"]
    assert told(dims) == [] and f"moe.width: {dims - 1} is less than 16 of clip + 32 of align" in told(dims - 1)[0]


@pytest.mark.parametrize("fast", [True, False])
def test_a_precision_that_the_processor_lacks_is_told(tmp_path, monkeypatch, fast):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: fast)
    told = check.oddities(open_study(tiny.write(tmp_path, changes={"student.precision": "bf16"})))
    said = "student: this processor has no instructions for bf16 or AVX-512, so its precision is float32"
    assert [line for line in told if "bf16" in line] == ([] if fast else [said])


@pytest.mark.parametrize(
    "method, said",
    [
        ("student+kd:moe", None),
        ("student+kd:moe/size=vit", "release.dataset: variants are trained on vehicles, not on 'people'"),
        (
            "student+kd:moe/size=nope",
            "release.method: 'student+kd:moe/size=nope' is none of this study's students: student, ",
        ),
        ("garbage", "release.method: 'garbage' is none of this study's students"),
        ("moe:soft", "release.method: 'moe:soft' is none"),
    ],
)
def test_what_cannot_be_handed_on_is_said_before_anything_is_trained(tmp_path, method, said):
    release = {"method": method, "dataset": "people", "terms": "any"}
    problems = check.problems(open_study(tiny.write(tmp_path, release=release)))
    assert [problem for problem in problems if problem.startswith("release")] == (problems if said else [])
    assert not said or problems[0].startswith(said)
