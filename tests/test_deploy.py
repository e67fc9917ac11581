"""A student out of the study: exported it says what torch says; the command line embeds, searches, exports, and explains itself."""

import subprocess
import sys

import numpy as np
import onnx
import pandas as pd
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from reidlib import deploy, folders
from reidlib.__main__ import main
from reidlib.data import DataError
from reidlib.data.hashes import file_hashes
from reidlib.encoders import build
from reidlib.gates import GATES
from reidlib.models import Embedder, MixtureOfExperts
from reidlib.params import EncoderParams
from reidlib.released import write_released
from reidlib.retrieval import EmbeddingSet

STUDENT = EncoderParams(name="timm:mobilenetv2_050", size=(64, 32))


def student(spec=STUDENT):
    """A network whose norms have seen something, so that none of its parts is as if it weren't there."""
    torch.manual_seed(0)
    model = Embedder(build(spec, spec.size), identities=5).train()
    for _ in range(3):
        model(torch.randint(0, 256, (8, 3, *spec.size), dtype=torch.uint8))
    return model.eval()


def pictures(n, *size):
    generator = torch.Generator().manual_seed(n)
    small = torch.randint(0, 256, (n, 3, 6, 3), generator=generator).float()
    return F.interpolate(small, size, mode="bilinear").round().to(torch.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The student as it is handed on: released, exported, exported in int8."""
    folder, model = tmp_path_factory.mktemp("handed on"), student()
    write_released(folder / "student.safetensors", model, STUDENT)
    deploy.export(model, folder / "student.onnx")
    deploy.quantize(folder / "student.onnx", folder / "int8.onnx", pictures(40, 64, 32).numpy())
    return folder


@pytest.mark.parametrize("length, wanted", [(64, 64), (128, 64), (127, 64), (61, 64), (300, 64), (10, 64), (64, 10)])
def test_the_filter_is_torchs(length, wanted):
    x = torch.rand(2, 3, length, length) * 255
    weights = deploy.bicubic(length, wanted)
    found = weights @ x @ weights.T
    expected = F.interpolate(x, (wanted, wanted), mode="bicubic", antialias=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    "n, size", [(1, (64, 32)), (5, (64, 32)), (3, (128, 64)), (2, (93, 41)), (1, (300, 120)), (4, (20, 11))]
)
def test_what_is_exported_says_what_torch_says(files, n, size):
    model, images = student(), pictures(n, *size)
    with torch.inference_mode():
        expected = model(images)
    found = deploy.OnnxNetwork(files / "student.onnx")(images)
    assert found.shape == expected.shape and torch.allclose(found.norm(dim=1), torch.ones(n), atol=1e-5)
    assert F.cosine_similarity(found, expected).min() > 0.9999


@pytest.mark.parametrize("name, size", [("timm:test_vit", (160, 160)), ("timm:tf_efficientnet_lite0", (64, 32))])
def test_other_networks_can_be_exported_too(tmp_path, name, size):
    model, images = student(EncoderParams(name=name, size=size)), pictures(2, 90, 50)
    found = deploy.OnnxNetwork(deploy.export(model, tmp_path / "a.onnx"))(images)
    with torch.inference_mode():
        assert F.cosine_similarity(found, model(images)).min() > 0.999


def test_int8_is_a_third_of_the_size_and_near(files):
    sizes = [(files / name).stat().st_size for name in ("student.onnx", "int8.onnx")]
    assert sizes[1] < 0.4 * sizes[0]
    images = pictures(30, 64, 32)
    one, other = (deploy.OnnxNetwork(files / name)(images) for name in ("student.onnx", "int8.onnx"))
    assert F.cosine_similarity(one, other).mean() > 0.85


@pytest.mark.parametrize("brightest, in_float", [(255, True), (125, False)])
def test_where_rare_large_values_would_be_cut_off_a_convolution_stays_in_float(tmp_path, monkeypatch, brightest, in_float):
    """Grey pictures, and in few of them one pixel: rarer than one in ten thousand, but most of what there is to see if white."""
    monkeypatch.setattr(deploy, "FLOAT", 0)
    grey = pictures(40, 64, 32).numpy() // 50 + 118
    grey[::8, :, 5, 5] = brightest
    exported = deploy.export(student(), tmp_path / "student.onnx")
    graph = onnx.load(str(deploy.quantize(exported, tmp_path / "int8.onnx", grey))).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    first, *others = (made_by[node.input[0]] == "DequantizeLinear" for node in graph.node if node.op_type == "Conv")
    assert first is not in_float and any(others)


def test_a_mixture_is_not_exported(tmp_path):
    parts = [student(), student()]
    with pytest.raises(TypeError, match="this is a MixtureOfExperts: distil it into a student"):
        deploy.export(MixtureOfExperts(parts, GATES["uniform"]([p.dim for p in parts], 0, 0)), tmp_path / "a.onnx")


@pytest.mark.parametrize("ending", [".onnx", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\0" * 1000])
def test_a_file_that_is_no_network_is_named(tmp_path, ending, content):
    file = tmp_path / f"a{ending}"
    file.write_bytes(content)
    with pytest.raises((ValueError, RuntimeError), match=f"a{ending} is no (exported|released) network"):
        deploy.open_network(file)
    with pytest.raises(deploy.DeployError, match="none.onnx: no such file"):
        deploy.open_network(tmp_path / "none.onnx")


def test_the_network_that_comes_with_the_project_is_opened_where_none_is_named():
    network = deploy.open_network()
    assert network.origin.startswith("student-kd-moe.safetensors (") and deploy.picture_size(network) == (192, 96)


@pytest.fixture
def crops(tmp_path):
    """A folder of crops of different sizes and formats, one of them broken, one no picture."""
    folder = tmp_path / "crops"
    (folder / "deeper").mkdir(parents=True)
    for i, (name, size) in enumerate(
        [("a.jpg", (64, 32)), ("b.png", (130, 60)), ("deeper/c.webp", (90, 41)), ("d.JPG", (64, 32))]
    ):
        Image.fromarray(pictures(i + 1, *size)[0].permute(1, 2, 0).numpy()).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.parametrize("name", ["student.safetensors", "student.onnx"])
def test_embed_and_search(files, crops, tmp_path, capsys, name):
    table = tmp_path / "gallery.parquet"
    assert main("embed", str(crops), "-o", str(table), "--network", str(files / name)) == 0
    said = capsys.readouterr()
    assert said.out == "" and "left out, for 1 of 5 pictures can't be read: " in said.err and "broken.jpg" in said.err
    assert pyarrow.parquet.read_schema(table).field("embedding").type == pyarrow.list_(pyarrow.float32())
    gallery = folders.read_table(table)
    assert [path.rpartition("/")[2] for path in gallery["path"]] == ["a.jpg", "b.png", "d.JPG", "c.webp"]
    assert np.allclose([np.linalg.norm(row) for row in gallery["embedding"]], 1, atol=1e-5)
    copy = tmp_path / "somebody.png"
    Image.open(crops / "b.png").save(copy)
    assert main("search", str(table), str(copy), "--top", "3", "--network", str(files / name)) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["query", "rank", "similarity", "path"] and len(lines) == 4
    assert lines[1][:3] == [str(copy), "1", "1.0000"] and lines[1][3] == str(crops / "b.png")
    assert float(lines[1][2]) >= float(lines[2][2]) >= float(lines[3][2])


def test_another_network_than_the_gallerys_is_told(files, crops, tmp_path, capsys):
    table, somebody = tmp_path / "gallery.parquet", str(crops / "a.jpg")
    assert main("embed", str(crops), "-o", str(table), "--network", str(files / "student.safetensors")) == 0
    for name, told in (("student.safetensors", False), ("student.onnx", True)):
        capsys.readouterr()
        assert main("search", str(table), somebody, "--network", str(files / name)) == 0
        said = f"was embedded by student.safetensors ({file_hashes([files / 'student.safetensors'])[0][:12]}), the pictures now by"
        assert (said in capsys.readouterr().err) == told


def test_networks_are_compared_as_they_are_deployed(files):
    model = student()
    model.neck.classifier = torch.nn.Linear(1280, 5000)  # what only training needs
    networks, threads = {"torch": model, "ONNX": deploy.OnnxNetwork(files / "student.onnx")}, []
    model.register_forward_hook(lambda *_: threads.append(torch.get_num_threads()))
    pid = np.arange(4)
    sets = [EmbeddingSet(np.zeros((4, 2), np.float32), pid, np.full(4, camera)) for camera in (0, 1)]
    pixels = {part: pictures(4, 64, 32).numpy() for part in ("query", "gallery")}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        table = deploy.comparison(networks, *sets, pixels, runs=2).set_index("network")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert model.neck.classifier is not None and table["size (MB)"]["torch"] < 1.1 * table["size (MB)"]["ONNX"]
    assert set(threads[:4]) == {1}  # where time is measured


def test_a_picture_is_no_answer_to_itself(files, crops):
    network = deploy.open_network(files / "student.onnx")
    table = folders.embed_pictures(network, [crops / "a.jpg", crops / "b.png"])
    found = folders.search(table, table)
    assert found["path"].tolist() == [str(crops / "b.png"), str(crops / "a.jpg")]


def test_an_exported_network_is_made_one_in_8_bits(files, crops, tmp_path):
    command = ("export", "-o", str(tmp_path / "small.onnx"), "--network", str(files / "student.onnx"))
    assert main(*command, "--int8", str(crops)) == 0
    assert (tmp_path / "small.onnx").stat().st_size < (files / "student.onnx").stat().st_size


def test_export_by_the_command_line(files, crops, tmp_path, capsys):
    for options in ((), ("--int8", str(crops))):  # of which one is broken
        file = tmp_path / "exported.onnx"
        assert main("export", "-o", str(file), "--network", str(files / "student.safetensors"), *options) == 0
        assert f"{file}: " in capsys.readouterr().err
        found = deploy.OnnxNetwork(file)(pictures(3, 64, 32))
        with torch.inference_mode():
            assert F.cosine_similarity(found, student()(pictures(3, 64, 32))).mean() > 0.8


@pytest.mark.parametrize(
    "options, said",
    [
        (["embed", "none", "-o", "a.parquet"], "none: no such file or folder"),
        (["embed", "{crops}/notes.txt", "-o", "a.parquet"], "none of the pictures can be read"),
        (["embed", "{crops}", "-o", "nowhere/a.parquet"], "nowhere/a.parquet: there is no folder nowhere"),
        (["export", "-o", "nowhere/a.onnx"], "nowhere/a.onnx: there is no folder nowhere"),
        (["search", "{crops}/notes.txt", "{crops}"], "notes.txt is no table of embeddings"),
        (["search", "none.parquet", "{crops}"], "none.parquet is no table of embeddings"),
        (["export", "-o", "a.onnx", "--network", "{files}/student.onnx"], "is exported already; with --int8"),
        (["status", "none.yaml"], "none.yaml: no such params file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(files, crops, tmp_path, capsys, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    options = [option.format(crops=crops, files=files) for option in options]
    if options[0] in ("embed", "search"):
        options += ["--network", str(files / "student.onnx")]
    assert main(*options) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("reidlib: ") and said in error


def test_galleries_of_other_networks_are_refused(files, crops):
    table = pd.DataFrame({"path": ["a"], "embedding": [np.ones(3, np.float32)]})
    with pytest.raises(DataError, match="the gallery's embeddings have 3 numbers, the queries' 1280"):
        folders.search(table, folders.embed_pictures(deploy.open_network(files / "student.onnx"), [crops / "a.jpg"]))


def test_help_teaches_and_needs_no_torch():
    code = "import sys; sys.argv[1:] = ['search', '--help']; import runpy; runpy.run_module('reidlib', run_name='__main__')"
    check = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert "python -m reidlib search gallery.parquet somebody.jpg" in done.stdout and done.stdout.endswith("False\n")
