"""What a study is: the schema of params/*.yaml.

A params file is checked whole before anything runs. An unknown key, a wrong type, an impossible value or a missing
file is refused by its full name, with the nearest valid key where one is near.
"""

import difflib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

Size = tuple[PositiveInt, PositiveInt]
Fraction = float
Name = Annotated[str, Field(pattern=r"^[\w-]+$")]  # becomes part of file names
TERMS = ("logit", "embedding", "relational")  # of distillation


class ParamsError(ValueError):
    """A params file that can't be run; the message names the file, each bad key and what would do."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Builtin(Strict):
    """The library's own drawn data, written to disk in a published layout."""

    domain: Literal["vehicles", "people"]
    train_ids: int = Field(ge=4)
    test_ids: int = Field(ge=2)
    cameras: int = Field(ge=2)
    images: int = Field(ge=2, description="pictures per identity and camera")
    seed: NonNegativeInt = 0


class DatasetParams(Strict):
    """One data set: where it is or how it is drawn, and the size its pictures are kept at."""

    layout: Literal["market1501", "veri776"]
    size: Size = Field(description="height, width in pixels of the decoded store")
    root: str | None = Field(None, description="folder, absolute or below REIDLIB_DATA")
    builtin: Builtin | None = None
    title: str | None = Field(None, description="the name to print, where it differs from the key")

    @model_validator(mode="after")
    def one_source(self):
        if (self.root is None) == (self.builtin is None):
            raise ValueError("give either 'root' (real pictures) or 'builtin' (drawn ones), not both, not neither")
        return self


class EncoderParams(Strict):
    """An image encoder by name, e.g. open_clip:ViT-B-16, align:kakaobrain/align-base, timm:mobilenetv2_100."""

    name: str = Field(pattern=r"^(open_clip|align|timm):.+")
    weights: str | None = Field(None, description="a pretrained tag, a file (below REIDLIB_WEIGHTS); null: random")
    size: Size | None = Field(None, description="height, width in pixels the network sees; null: the data set's")
    miniature: dict | None = Field(None, description="a small configuration of the same class, for built-in data")
    mean: tuple[float, float, float] | None = Field(None, description="input mean, where not the encoder's own")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None

    @model_validator(mode="after")
    def sound_miniature(self):
        if self.miniature is not None and self.name.startswith("timm:"):
            raise ValueError(f"{self.name} can't be a miniature; only open_clip and align encoders can")
        if self.miniature is not None and self.size is None:
            raise ValueError(f"{self.name}: a miniature is pretrained at one size, so it needs 'size'")
        return self


class Augmentation(Strict):
    """Whole-tensor augmentation of training pictures."""

    flip: Fraction = Field(0.5, ge=0, le=1)
    pad: int = Field(4, ge=0, description="pixels of padding before the random crop")
    erase: Fraction = Field(0.5, ge=0, le=1, description="probability of random erasing")
    jitter: float = Field(0.0, ge=0, le=1, description="strength of brightness and contrast changes")


class Recipe(Strict):
    """How one network is trained."""

    epochs: PositiveInt
    p: int = Field(16, ge=2, description="identities in a batch")
    k: int = Field(4, ge=2, description="pictures of each identity in a batch")
    lr: PositiveFloat = Field(description="peak learning rate of AdamW")
    weight_decay: float = Field(1e-4, ge=0)
    warmup: float = Field(1.0, ge=0, description="epochs of linear warm-up; cosine to zero afterwards")
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning rate factor from each layer to the one below")
    frozen: Fraction = Field(0.0, ge=0, le=1, description="share of the encoder's layers, input first, not trained")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    margin: float | None = Field(0.3, gt=0, description="triplet margin; null: soft margin")
    triplet: float = Field(1.0, ge=0, description="weight of the triplet loss")
    augmentation: Augmentation = Augmentation()


class NetworkParams(Strict):
    """A network and how it is trained: the student, the router."""

    encoder: EncoderParams
    recipe: Recipe


class ExpertParams(NetworkParams):
    stands_in_for: str | None = Field(None, description="what the paper has in this one's place, if it is a stand-in")


class MoeParams(Strict):
    """The gate over the frozen experts."""

    gates: list[Literal["soft", "top1", "uniform", "concat", "router"]] = Field(min_length=1)
    width: PositiveInt = Field(description="common width of the experts' projections")
    balance: dict[Literal["soft", "top1"], Annotated[float, Field(ge=0)]] = Field(
        {"soft": 1.0, "top1": 0.01}, description="weight of the load-balancing term under each gate that is trained"
    )
    recipe: Recipe
    router: NetworkParams | None = Field(None, description="sees the picture first and picks the one expert that runs")

    @model_validator(mode="after")
    def whole_router(self):
        if "router" in self.gates and self.router is None:
            raise ValueError("gates names 'router', so 'router' must say which network it is and how it is trained")
        if "router" in self.gates and "top1" not in self.gates:
            raise ValueError("gates names 'router', which imitates the top-1 gate, so it must hold 'top1' too")
        return self


class DistillationParams(Strict):
    """Which teachers the student learns from, and the weight of each term."""

    teachers: list[str] = Field(description="names of experts, 'uniform', or 'moe' (the soft gate)")
    temperature: PositiveFloat = 4.0
    terms: dict[str, Annotated[float, Field(ge=0)]] = Field({}, description="weight of each term")
    teacher: Literal["cached", "online"] = Field(
        "cached", description="cached: its word on every picture, computed once; online: it sees the student's own batch"
    )

    @model_validator(mode="before")
    @classmethod
    def former_terms(cls, tree):  # until params files write terms themselves
        own = {key: tree[key] for key in TERMS if key in tree}
        return {k: v for k, v in tree.items() if k not in TERMS} | ({"terms": own} if own else {})


class AblationParams(Strict):
    """Variants of the student under the MoE, each beside the study's own setting."""

    datasets: list[str] = Field(min_length=1, description="data sets they are trained on")
    terms: list[str] = Field([], description="which terms of distillation alone, such as logit or logit+relational")
    temperatures: list[PositiveFloat] = []
    online: bool = Field(False, description="also with the online teacher")
    sizes: dict[Name, EncoderParams] = Field({}, description="other students, by name")

    @field_validator("terms")
    @classmethod
    def known_terms(cls, terms):
        for term in (t for together in terms for t in together.split("+")):
            if term not in TERMS:
                raise ValueError(f"'{term}' is no term of distillation{_nearest(term, list(TERMS))}")
        return terms


class PretrainingParams(Strict):
    """Contrastive pretraining of the miniatures on captioned built-in pictures."""

    pictures: PositiveInt
    epochs: PositiveInt
    batch: PositiveInt = 128
    lr: PositiveFloat = 1e-3
    weight_decay: float = Field(0.05, ge=0)
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def one_batch(self):
        if self.pictures < self.batch:
            raise ValueError(f"{self.pictures} pictures do not fill a batch of {self.batch}; lower 'batch'")
        return self


class Runs(Strict):
    runs: PositiveInt = Field(20, description="interleaved timed runs of each model")
    batch: PositiveInt = Field(32, description="pictures a batch when throughput is measured")


class ProfilingParams(Runs):
    paper: Runs | None = Field(None, description="measure the networks of params/paper.yaml too, with random weights")


class StudyParams(Strict):
    """A study: data sets, experts, gate, student, seeds."""

    title: str
    note: str | None = Field(None, description="printed under every table: what stands in for what")
    seeds: list[NonNegativeInt] = Field(min_length=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["no", "bf16", "fp16"] = "no"
    threads: PositiveInt = 1
    publish_images: bool = Field(True, description="false: the data's terms forbid figures that show its pictures")
    data_root: str | None = Field(None, description="where data sets lie; REIDLIB_DATA goes first")
    weights_root: str | None = Field(None, description="where weight files lie; REIDLIB_WEIGHTS goes first")
    datasets: dict[Name, DatasetParams] = Field(min_length=1)
    experts: dict[Name, ExpertParams] = Field(min_length=2)
    moe: MoeParams
    student: NetworkParams
    distillation: DistillationParams
    ablations: AblationParams | None = None
    mixed: bool = Field(False, description="also train on all data sets at once, for as many steps as on the first")
    pretraining: PretrainingParams | None = None
    profiling: ProfilingParams = ProfilingParams()

    @field_validator("precision", mode="before")
    @classmethod
    def no_is_a_word(cls, value):
        return "no" if value is False else value  # YAML reads a bare no as false

    @field_validator("seeds")
    @classmethod
    def different(cls, seeds):
        if len(set(seeds)) < len(seeds):
            raise ValueError("give each seed once: a repeated one would narrow the intervals for nothing")
        return seeds

    @model_validator(mode="after")
    def consistent(self):
        for name in {"uniform", "moe"} & set(self.experts):
            raise ValueError(f"experts.{name}: the name of a teacher made of all experts; call this expert otherwise")
        known = [*self.experts, "uniform", "moe"]
        for teacher in self.distillation.teachers:
            if teacher not in known:
                raise ValueError(f"distillation.teachers: '{teacher}' is no teacher{_nearest(teacher, known)}")
        if "moe" in self.distillation.teachers and "soft" not in self.moe.gates:
            raise ValueError("distillation.teachers names 'moe', so moe.gates must hold 'soft'")
        if "uniform" in self.distillation.teachers and "uniform" not in self.moe.gates:
            raise ValueError("distillation.teachers names 'uniform', so moe.gates must hold 'uniform'")
        others = {"student": self.student, "moe.router": self.moe.router}
        small = {where: network.encoder for where, network in others.items() if network}
        small |= {f"ablations.sizes.{name}": e for name, e in self.ablations.sizes.items()} if self.ablations else {}
        for where, encoder in small.items():
            if encoder.miniature is not None:
                raise ValueError(f"{where}: only experts can be miniatures; name a small timm network")
        if self.ablations is not None:
            if "moe" not in self.distillation.teachers:
                raise ValueError("ablations vary the student under the MoE, so distillation.teachers must hold 'moe'")
            for name in self.ablations.datasets:
                if name not in self.datasets:
                    raise ValueError(f"ablations.datasets: no data set '{name}'{_nearest(name, list(self.datasets))}")
        if self.mixed and len(self.datasets) < 2:
            raise ValueError("mixed: true wants two data sets or more")
        miniatures = [name for name, e in self.experts.items() if e.encoder.miniature is not None]
        if miniatures and self.pretraining is None:
            raise ValueError(f"experts.{miniatures[0]} is a miniature, so 'pretraining' must say how it is pretrained")
        recipes = {f"experts.{name}": e.recipe for name, e in self.experts.items()}
        recipes |= {where: network.recipe for where, network in others.items() if network}
        for where, recipe in (recipes | {"moe": self.moe.recipe}).items():
            for name, spec in self.datasets.items():
                if spec.builtin and recipe.p > spec.builtin.train_ids:
                    few = f"'{name}' has {spec.builtin.train_ids} training identities"
                    raise ValueError(f"{where}.recipe.p is {recipe.p}, but data set {few}")
        return self


def find(study: str | Path) -> Path:
    """The params file `study` names: a path, or one relative to the working directory or a folder above it.

    Raises ParamsError naming every place looked at when there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / study).is_file():
            return (folder / study).resolve()
    nearby = sorted(str(p.relative_to(f)) for f in (here, *here.parents) for p in f.glob("params/*.yaml"))
    hint = _nearest(str(study), nearby) or (f"; there are {', '.join(nearby)}" if nearby else "")
    raise ParamsError(f"{study}: no such params file in {here} or a folder above it{hint}")


def load(study: str | Path, overrides: list[str] = ()) -> StudyParams:
    """Read and check a params file.

    Args:
        study: path of the file, see `find`.
        overrides: "a.b.c=value" each, value in YAML, as `student.recipe.lr=0.001`.
    Raises:
        ParamsError: in one message, all that is wrong with the file.
    """
    path = find(study)
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: a params file is a mapping of keys, as in params/demo.yaml")
    for override in overrides:
        keys, equals, value = override.partition("=")
        if not equals:
            raise ParamsError(f"override '{override}': write it key.key=value, e.g. student.recipe.lr=0.001")
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ParamsError(f"override '{override}': not readable as YAML: {error}") from None
        _put(tree, keys.split("."), value, override)
    try:
        return StudyParams.model_validate(tree)
    except ValidationError as error:
        raise ParamsError(_explain(error, path)) from None


def _put(tree: dict, keys: list[str], value, override: str) -> None:
    for key in keys[:-1]:
        below = tree.get(key, {})
        if not isinstance(below, dict):
            raise ParamsError(f"override '{override}': '{key}' is no mapping")
        tree[key] = dict(below)  # by a YAML alias, the same mapping may stand elsewhere too
        tree = tree[key]
    tree[keys[-1]] = value


def _explain(error: ValidationError, path: Path) -> str:
    lines = [f"{path}: {error.error_count()} thing(s) to mend before this study can run"]
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"- {where}: unknown key{_nearest(str(item['loc'][-1]), _siblings(item['loc']))}")
        else:
            given = "" if item["type"] in ("missing", "value_error") else f" (given: {item['input']!r})"
            lines.append(f"- {where or 'the file'}: {item['msg'].removeprefix('Value error, ')}{given}")
    return "\n".join(lines)


def _siblings(loc: tuple) -> list[str]:
    """The valid keys where the last part of `loc` stands."""
    schema = StudyParams.model_json_schema()
    node = schema
    for part in loc[:-1]:
        named = list(node.get("patternProperties", {}).values()) or [{}]
        node = _resolve(node.get("properties", {}).get(part) or named[0], schema)
    return list(node.get("properties", {}))


def _resolve(node: dict, schema: dict) -> dict:
    if isinstance(node, dict) and "anyOf" in node:
        node = next((option for option in node["anyOf"] if "$ref" in option), node)
    if isinstance(node, dict) and "$ref" in node:
        return schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node if isinstance(node, dict) else {}


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else (f"; valid: {', '.join(known)}" if known else "")
