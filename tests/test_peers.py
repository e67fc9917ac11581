"""Peers: networks of others in OpenVINO, read, counted and run as their makers meant them, beside the study's own."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from reidlib import agenda, check, gathering, profiling
from reidlib.methods import ELSEWHERE
from reidlib.peers import PeerNetwork, peer_files
from reidlib.study import open_study
from reidlib.training import Machine
from reidlib.weights import WeightsError

SIZE = (16, 8)
SHAPES = {"kernel": (6, 3, 3, 3), "grouped": (3, 2, 2, 3, 3), "dense": (5, 6)}
PARAMETERS = 6 * 3 * 9 + 6 * 2 * 9 + 5 * 6
MACS = (14 * 6) * 6 * (3 * 9) + (12 * 4) * 6 * (2 * 9) + 5 * 6
PICTURES = np.random.default_rng(0).integers(0, 256, (5, 3, *SIZE), dtype=np.uint8)
PEERS = {"small": {"file": "small.xml", "trained_on": "numbers"}}


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def small(images: torch.Tensor) -> torch.Tensor:
    """The small peer in torch: two convolutions, one of them grouped, their mean over the picture, a dense layer."""
    own = {name: torch.from_numpy(values) for name, values in weights().items()}
    x = F.conv2d(images.flip(1).float(), own["kernel"])
    x = F.conv2d(x.relu(), own["grouped"].flatten(0, 1), groups=3)
    return x.mean((2, 3)) @ own["dense"].T


def save(file: Path, last: str = "embedding") -> Path:
    """The small peer as a file of OpenVINO's; skips the test where openvino is not installed."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    own, plain = weights(), {"strides": [1, 1], "pads_begin": [0, 0], "pads_end": [0, 0], "dilations": [1, 1]}
    pictures = ops.parameter([1, 3, *SIZE], np.float32)
    x = ops.relu(ops.convolution(pictures, ops.constant(own["kernel"]), **plain))
    x = ops.group_convolution(x, ops.constant(own["grouped"]), **plain)
    pooled = ops.reduce_mean(x, ops.constant(np.array([2, 3])), keep_dims=False)
    embedding = ops.matmul(pooled, ops.constant(own["dense"]), transpose_a=False, transpose_b=True)
    model = openvino.Model([{"embedding": embedding, "map": x}[last]], [pictures])
    openvino.save_model(model, file, compress_to_fp16=False)
    return file


def test_a_peer_gives_what_its_network_computes_whatever_the_batch(tmp_path):
    peer, pictures = PeerNetwork(save(tmp_path / "small.xml"), threads=1), torch.from_numpy(PICTURES)
    expected = small(pictures)
    for batch in (pictures, pictures[:2], pictures[:1]):
        torch.testing.assert_close(peer(batch), expected[: len(batch)], rtol=1e-4, atol=1e-2)
    larger = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (5, 3, 37, 20), dtype=np.uint8))
    # as `encoders.Encoder` does
    resized = F.interpolate(larger.float(), SIZE, mode="bicubic", antialias=True).clamp(0, 255)
    assert (F.cosine_similarity(peer(larger), small(resized)) > 0.9999).all()
    assert not torch.allclose(peer(pictures.flip(1)), expected), "BGR is not RGB"


def test_a_peer_is_counted_exactly_and_timed_in_turns_with_the_others(tmp_path):
    file = save(tmp_path / "small.xml")
    peer = PeerNetwork(file, threads=1)
    size = (file.stat().st_size + file.with_suffix(".bin").stat().st_size) / 1e6
    assert peer.costs() == {"parameters": PARAMETERS, "macs": MACS, "file_mb": size}

    class Own(torch.nn.Module):
        forward = staticmethod(small)

    table = profiling.profile({"student": Own(), "peer:small": peer}, PICTURES, Machine("cpu"), runs=2, batch=4)
    values = table.pivot(index="metric", columns="method", values="value")
    assert values["peer:small"].drop("peak_memory_mb").gt(0).all() and np.isnan(values.loc["peak_memory_mb", "peer:small"])
    assert values.loc["macs", "peer:small"] == values.loc["macs", "student"] == MACS
    assert table["value"].notna().all() and table["spread"].notna().sum() == 4
    assert torch.equal(copy.deepcopy(peer)(torch.from_numpy(PICTURES)), peer(torch.from_numpy(PICTURES)))


def test_what_is_no_peer_is_refused_with_its_file(tmp_path):
    with pytest.raises(WeightsError, match="map.xml is no peer: one takes pictures"):
        PeerNetwork(save(tmp_path / "map.xml", last="map"), 1)
    file = save(tmp_path / "small.xml")
    file.with_suffix(".bin").write_bytes(file.with_suffix(".bin").read_bytes()[:50])
    with pytest.raises(WeightsError, match="small.xml can't be used .* fetch it and its .bin again"):
        PeerNetwork(file, 1)


def test_missing_files_and_a_missing_openvino_are_named_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "a.xml").write_text("")
    with pytest.raises(WeightsError) as error:
        peer_files(tmp_path / "a.xml")
    said = str(error.value)
    assert said.startswith(f"there is no {tmp_path / 'a.bin'}. Put it there") and "REIDLIB_PEERS" in said
    (tmp_path / "a.bin").write_text("")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(WeightsError, match=r"a.xml runs in the package openvino.*'.\[peers\]', or leave peers out"):
        PeerNetwork(tmp_path / "a.xml", 1)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """study(peers): the smallest one with a peer; its files lie in tmp_path/peers."""
    monkeypatch.delenv("REIDLIB_PEERS", raising=False)
    (tmp_path / "peers").mkdir()
    for name in ("small.xml", "small.bin"):
        (tmp_path / "peers" / name).write_text(name)
    return lambda peers=PEERS, **top: open_study(tiny.write(tmp_path, peers=peers, **top))


def test_a_study_evaluates_its_peers_once_on_each_data_set_and_trains_nothing_for_it(study):
    s = study(seeds=[3, 4])
    found = [of for of in agenda.evaluations(s.params) if of.method == "peer:small"]
    assert found == [("peer:small", ELSEWHERE, dataset, 3) for dataset in ("vehicles", "people")]
    assert agenda.peers(s.params) == ["peer:small"] and "peer:small" not in [*s.methods, *agenda.measured(s.params)]
    assert list(s.plan.evaluation(*found[0][:3], 3).parents["query"].parents) == ["pixels"]
    assert s.plan.network("peer:small", ELSEWHERE, 3) is None
    with pytest.raises(ValueError, match="'peer:other' is no method of this study; it has .*peer:small"):
        s.evaluate("peer:other", "people", 3)
    with pytest.raises(ValueError, match="no model"):
        s.model("peer:small", "people", 3)


def test_a_peers_files_are_in_the_keys_of_what_it_made_and_in_no_other(study, tmp_path):
    before = tiny.keys(study().root / "params" / "tiny.yaml")
    for name in ("small.xml", "small.bin"):
        (tmp_path / "peers" / name).rename(tmp_path / "peers" / name.replace("small", "renamed"))
    renamed = {"small": {"file": "renamed.xml", "trained_on": "more numbers"}}
    assert tiny.keys(study(renamed).root / "params" / "tiny.yaml") == before
    (tmp_path / "peers" / "renamed.bin").write_text("other")
    found = tiny.changed(before, tiny.keys(study(renamed).root / "params" / "tiny.yaml"))
    assert found == {label for label in before if "peer:" in label} | {"costs"}


def test_the_check_names_a_peer_that_can_not_run(study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    (found,) = check.problems(study())
    assert found.startswith("peers.small: small.xml runs in the package openvino, which is not installed")
    monkeypatch.setenv("REIDLIB_PEERS", str(tmp_path / "elsewhere"))
    (found,) = check.problems(study())
    assert found.startswith(f"peers.small: there is no {tmp_path / 'elsewhere' / 'small.xml'} and no ")


def test_a_study_with_a_peer_runs_and_its_remark_says_what_it_is(study, tmp_path):
    save(tmp_path / "peers" / "small.xml")
    s = study(flip_test=True)
    assert check.problems(s) == []
    assert s.params.remark.endswith(
        "Peers are others' networks, trained elsewhere (small on numbers); they run in OpenVINO on the CPU, in float32."
    )
    rows = gathering.accuracy(s, agenda.peers(s.params), across=True)
    assert set(rows["train_dataset"]) == {ELSEWHERE} and set(rows["test_dataset"]) == {"vehicles", "people"}
    assert set(gathering.accuracy(s, ["peer:small"], ["people"])["test_dataset"]) == {"people"}
    pictures = torch.from_numpy(np.array(s.pixels("people", "query")))
    peer = PeerNetwork(tmp_path / "peers" / "small.xml", 1)
    expected = (peer(pictures) + peer(pictures.flip(3))) / 2
    np.testing.assert_allclose(s.embeddings("peer:small", ELSEWHERE, 0, "people", "query"), expected, rtol=1e-5)
