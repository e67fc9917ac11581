"""The network that a study hands on: read back it says the same, and its card says what it is."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity

from publishing.card import beside, release
from reidlib import gathering
from reidlib.methods import ELSEWHERE
from reidlib.params import ParamsError
from reidlib.params.schema import PeerParams
from reidlib.released import read_released
from reidlib.results import Results
from reidlib.study import open_study
from tests import tiny

MADE = {
    "units": {"student+kd:moe|vehicles|0": {"environment": "0"}},
    "environments": {"0": {"commit": "0123456789abcdef", "uncommitted changes": True}},
}
RELEASE = {"method": "student+kd:moe", "dataset": "vehicles", "terms": "Research only, as the data's."}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    changes = {"ablations": None, "mixed": False, "student.taught": tiny.RECIPE | {"lr": 0.004}}
    file = tiny.write(tmp_path_factory.mktemp("made"), changes=changes, release=RELEASE)
    return open_study(file)


@pytest.fixture(scope="module")
def made(study, tmp_path_factory):
    """The released file. Of the results, what the card is made of."""
    rows = gathering.accuracy(study, [RELEASE["method"]], across=True)
    results = Results(study.name, study.params, rows, gathering.evaluations(study, rows), MADE, study.root)
    return release(study, results, tmp_path_factory.mktemp("results") / "weights"), rows


def test_what_is_released_says_what_the_study_has_measured(study, made):
    model, pictures = read_released(made[0]), torch.from_numpy(np.array(study.pixels("vehicles", "query")))
    with torch.inference_mode():
        found = model(pictures)
    expected = torch.from_numpy(study.embeddings(RELEASE["method"], "vehicles", 0))
    assert (cosine_similarity(found, expected) > 0.999).all() and found.shape == expected.shape
    assert not model.training and model.neck.classifier is None and model.projection is None
    state = load_file(made[0])
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    assert not [name for name in state if "classifier" in name or name.startswith("projection")]


def test_the_card_has_the_scores_of_that_network_on_every_test_set(study, made):
    file, rows = made
    card = (file.parent / "README.md").read_text()
    for test, where in (("vehicles", "its own test set"), ("people", "never seen in training")):
        cell = rows[(rows["train_dataset"] == "vehicles") & (rows["test_dataset"] == test) & (rows["seed"] == 0)]
        mAP = 100 * cell.set_index("metric")["value"]["mAP"]
        assert f"| {test} | {where} | {mAP:.1f} (" in card
    assert RELEASE["terms"] in card and "timm:test_efficientnet" in card and "trained on vehicles" in card
    assert f'read_released("{file.name}")' in card and "taught by moe" in card
    assert "by the\ncode of commit 0123456789ab, with changes that were not committed." in card
    assert "lr: 0.004\n" in card and "lr: 0.001" not in card  # the recipe of students that are taught


def test_the_card_says_what_published_networks_find_on_the_same_pictures(study, made):
    peer = PeerParams(file="small.xml", trained_on="other people")
    params = study.params.model_copy(update={"peers": {"small": peer}})
    rows = made[1].assign(method="peer:small", train_dataset=ELSEWHERE, value=0.625)
    said = beside(Results(study.name, params, rows, {}, {}, study.root))
    assert (
        said == "Published networks, trained elsewhere, on the same pictures (mAP on vehicles / people): small 62.5 / 62.5."
    )
    assert "Published networks" not in (made[0].parent / "README.md").read_text()


def test_what_is_no_released_network_is_refused(tmp_path, made):
    for name, state in (("other", {"x": torch.zeros(1)}), ("empty", None)):
        file = tmp_path / f"{name}.safetensors"
        save_file(state, file) if state else file.write_bytes(b"")
        with pytest.raises(ValueError, match=f"{name}.safetensors is no released network"):
            read_released(file)
    with pytest.raises(ValueError, match="is no released network"):
        read_released(tmp_path / "gone.safetensors")


def test_only_what_is_trained_can_be_released(tmp_path):
    with pytest.raises(ParamsError, match="nothing is trained on 'horses'"):
        open_study(tiny.write(tmp_path, release=RELEASE | {"dataset": "horses"}))
