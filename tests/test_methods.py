"""What a method's name says, read and printed in one place."""

import pandas as pd
import pytest

from reidlib.methods import Expert, Moe, Peer, Pixels, Start, Student, label, parse, taught_by, teacher

NAMES = {
    "pixels": Pixels(),
    "start:clip": Start(name="clip"),
    "expert:clip": Expert(name="clip"),
    "moe:soft": Moe(gate="soft"),
    "moe:top1/expert=align": Moe(gate="top1", expert="align"),
    "student": Student(),
    "student/size=byobnet-48": Student(size="byobnet-48"),
    "student+kd:moe/size=a/epochs=40": Student(taught_by="moe", size="a", epochs=40),
    "student+kd:moe": Student(taught_by="moe"),
    "student+kd:moe/terms=logit+relational": Student(taught_by="moe", terms=("logit", "relational")),
    "student+kd:clip/temperature=0.5/teacher=online": Student(taught_by="clip", temperature=0.5, teacher="online"),
    "expert:clip/configuration=paper": Expert("paper", "clip"),
    "student/configuration=paper": Student("paper"),
    "peer:retail-0288": Peer(name="retail-0288"),
}


@pytest.mark.parametrize("text", NAMES)
def test_a_name_is_read_and_printed_as_it_was(text):
    assert parse(text) == NAMES[text] and str(parse(text)) == text and parse(parse(text)) == NAMES[text]


def test_what_says_the_same_is_the_same():
    assert parse("student+kd:moe/temperature=16") == parse("student+kd:moe/temperature=16.0")
    assert str(parse("student+kd:moe/size=a/terms=logit")) == "student+kd:moe/terms=logit/size=a"


@pytest.mark.parametrize(
    "text, says",
    [
        ("studnet", "methods are"), ("expert", "methods are"), ("expert:", "write each change"), ("pixels:x", "methods are"),
        ("student+kd", "methods are"), ("student:moe", "methods are"), ("moe:soft/depth=3", "no variant 'depth'"),
        ("student/temperature=4", "without a teacher"), ("student+kd:moe/temperature=0", "above 0"),
        ("student+kd:moe/temperature=nan", "above 0"), ("student+kd:moe/temperature=x", "could not convert"),
        ("student+kd:moe/teacher=offline", "cached or online"), ("student/size", "as /what=value"),
        ("student/epochs=0", "a whole number above 0"), ("student/epochs=some", "is no method"),
        ("student/size=a/size=b", "write each change once"), ("", "methods are"),
    ],
)  # fmt: skip
def test_what_is_no_method_is_refused_by_name(text, says):
    with pytest.raises(ValueError, match=says) as raised:
        parse(text)
    assert repr(text) in str(raised.value)


def test_kinds_and_bases():
    kinds = {"pixels": "pixels", "start:clip": "start", "expert:clip": "expert", "moe:soft": "moe", "student": "student"}
    assert {text: parse(text).kind for text in kinds} == kinds and parse("student+kd:moe/size=a").kind == "student+kd"
    assert [text for text in kinds if not parse(text).seeded] == ["pixels", "start:clip"]
    assert parse("student+kd:moe/size=a").base == parse("student+kd:moe")
    assert parse("moe:top1/expert=clip/configuration=paper").base == parse("moe:top1")
    assert parse("student+kd:moe/terms=logit").changes() == {"terms": "logit"}


def test_teachers_and_whom_they_teach():
    assert teacher("moe") == parse("moe:soft") and teacher("uniform") == parse("moe:uniform")
    assert teacher("clip") == parse("expert:clip")
    assert [str(taught_by(m)) for m in ("moe:soft", "moe:uniform", "expert:clip")] == [
        "student+kd:moe", "student+kd:uniform", "student+kd:clip",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no teacher"):
        taught_by("moe:top1")
    with pytest.raises(ValueError, match="no teacher"):
        taught_by("peer:retail-0288")


def test_labels_are_those_of_the_committed_tables():
    assert label("expert:clip") == "CLIP expert" and label("expert:vit_s") == "vit_s expert"
    assert label("peer:retail-0288") == "retail-0288 (peer)"
    assert label("student/size=96") == "Student, size = 96" and label("moe:mine") == "MoE, mine gate"
    assert label("student+kd:align") == "Student + KD from ALIGN"
    rows = pd.read_csv("results/demo/results.csv")
    assert all(str(parse(method)) == method and label(method) for method in rows["method"].unique())
