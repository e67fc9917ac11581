"""The schema of params/*.yaml: keys, types, what they mean, and what can't be."""

import difflib  # noqa: I001
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from reidlib.params.networks import (
    EncoderParams,
    ExpertParams,
    Name,
    NetworkParams,
    Precision,
    Recipe,
    Size,
    SizeParams,
    Strict,
    StudentParams,
    Weight,
)


def _each_once(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("name each once: what is there twice would count twice, and narrow the intervals for nothing")
    return values


EachOnce = AfterValidator(_each_once)


class Builtin(Strict):
    """Data that the project's toydata draws, written to disk in a published layout."""

    domain: Literal["vehicles", "people"]
    train_ids: int = Field(ge=4)
    test_ids: int = Field(ge=2)
    cameras: int = Field(ge=2)
    images: int = Field(ge=2, description="pictures per identity and camera")
    seed: NonNegativeInt = 0


class DatasetParams(Strict):
    """One data set: where it is or how it is drawn, and the size its pictures are kept at."""

    layout: str = Field(description="market1501, veri776, csv, or another of reidlib.data.layouts.LAYOUTS")
    size: Size = Field(description="height, width in pixels of the decoded store")
    root: str | None = Field(None, description="folder, absolute or below REIDLIB_DATA")
    table: str | None = Field(None, description="of the layout csv: its table, absolute or below the project's folder")
    builtin: Builtin | None = None
    title: str | None = Field(None, description="the name to print, where it differs from the key")
    test_only: bool = Field(False, description="nothing is trained on it alone; methods trained elsewhere are tested on it")

    @model_validator(mode="after")
    def one_source(self):
        if (self.root is None) == (self.builtin is None):
            raise ValueError("give either 'root' (real pictures) or 'builtin' (drawn ones), not both, not neither")
        if self.table is not None and self.layout != "csv":
            raise ValueError(f"'table' is for the layout csv, this is {self.layout}")
        return self


class MoeParams(Strict):
    """The gate over the frozen experts."""

    gates: Annotated[list[Name], EachOnce] = Field(min_length=1, description="of reidlib.gates.GATES, or router")
    width: PositiveInt = Field(description="common width of the experts' projections")
    balance: dict[Name, Weight] = Field(
        {"soft": 1.0, "top1": 0.01}, description="weight of the load-balancing term under each gate; of others 0"
    )
    recipe: Recipe
    router: NetworkParams | None = Field(None, description="sees the picture first and picks the one expert that runs")

    @model_validator(mode="after")
    def of_embeddings(self):
        if self.recipe.stages:  # what else is of pictures alone may stand in a recipe that several share
            raise ValueError("recipe.stages is for networks that see pictures; a gate sees the experts' embeddings")
        return self

    @model_validator(mode="after")
    def whole_router(self):
        if "router" in self.gates and self.router is None:
            raise ValueError("gates names 'router', so 'router' must say which network it is and how it is trained")
        if "router" in self.gates and "top1" not in self.gates:
            raise ValueError("gates names 'router', which imitates the top-1 gate, so it must hold 'top1' too")
        return self


class DistillationParams(Strict):
    """Which teachers the student learns from, and the weight of each term."""

    teachers: Annotated[list[str], EachOnce] = Field(description="names of experts, 'uniform', or 'moe' (the soft gate)")
    temperature: PositiveFloat = 4.0
    terms: dict[Name, Weight] = Field(
        {"logit": 1.0, "embedding": 1.0, "relational": 1.0},
        min_length=1, description="weight of each term, of reidlib.losses.distillation.TERMS; one is above 0",
    )  # fmt: skip
    teacher: Literal["cached", "online"] = Field(
        "cached", description="cached: its word on every picture, computed once; online: it sees the student's own batch"
    )

    @field_validator("terms")
    @classmethod
    def something_to_learn(cls, terms):
        if not any(terms.values()):
            raise ValueError("all weigh 0, so nothing would be learnt from a teacher; give one a weight")
        return terms


class PeerParams(Strict):
    """A published network that a user could take instead: measured beside the study's methods, never learnt from."""

    file: str = Field(
        pattern=r".+\.xml$",
        description="OpenVINO IR, absolute or below REIDLIB_PEERS, its .bin beside it; it takes BGR from 0 to 255",
    )
    trained_on: str = Field(description="what its makers trained it on, for readers")


class AblationParams(Strict):
    """Variants of the student under the MoE, each beside the study's own setting."""

    datasets: Annotated[list[str], EachOnce] = Field(min_length=1, description="data sets they are trained on")
    terms: Annotated[list[str], EachOnce] = Field(
        [], description="which terms of distillation alone, such as logit or logit+relational"
    )
    temperatures: Annotated[list[PositiveFloat], EachOnce] = []
    online: bool = Field(False, description="also with the online teacher")
    sizes: dict[Name, SizeParams] = Field({}, description="other students, by name")
    epochs: Annotated[list[PositiveInt], EachOnce] = Field(
        [], description="students trained shorter or longer, alone and under the MoE"
    )
    seeds: Annotated[list[NonNegativeInt], EachOnce] | None = Field(
        None, min_length=1, description="of the study's, those that variants are trained with; null: all of them"
    )


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
    runs: int = Field(20, ge=2, description="interleaved timed runs of each model")
    batch: PositiveInt = Field(32, description="pictures a batch when throughput is measured")


class ProfilingParams(Runs):
    paper: Runs | None = Field(None, description="measure the networks of params/paper.yaml too, with random weights")


class ReleaseParams(Strict):
    """The network that is published with the results, for others to use: weights and a model card."""

    method: str = Field(description="a student, such as student+kd:moe; of the first seed, which no test set has chosen")
    dataset: str = Field(description="that it was trained on")
    terms: str = Field(description="who may use it for what, as the data's terms have it")


class StudyParams(Strict):
    """A study: data sets, experts, gate, student, seeds."""

    title: str
    note: str | None = Field(None, description="printed under every table: what stands in for what")
    seeds: list[NonNegativeInt] = Field(min_length=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "no"
    threads: PositiveInt = Field(1, description="CPU threads a unit of work is made with: more or fewer round otherwise")
    tracker: Literal["tensorboard"] | None = Field(
        None, description="who is given the curves of trainings while they run, in artifacts/<study>/tracked"
    )
    plugins: list[str] = Field([], description="Python files that add layouts, gates or terms, beside this file")
    publish_images: bool = Field(True, description="false: the data's terms forbid figures that show its pictures")
    data_root: str | None = Field(None, description="where data sets lie; REIDLIB_DATA goes first")
    weights_root: str | None = Field(None, description="where weight files lie; REIDLIB_WEIGHTS goes first")
    peers_root: str | None = Field(None, description="where peers' files lie; REIDLIB_PEERS goes first")
    shipped: str | None = Field(
        None, pattern=r"^\w[\w./ -]*$",
        description="folder of the project with networks that were trained before; null: everything is trained here",
    )  # fmt: skip
    datasets: dict[Name, DatasetParams] = Field(min_length=1)
    epochs_of: str | None = Field(
        None,
        description="data set whose epochs recipes count; others get as many steps. null: its own, of a mix the first's",
    )
    experts: dict[Name, ExpertParams] = Field(min_length=2)
    moe: MoeParams
    student: StudentParams
    distillation: DistillationParams
    peers: dict[Name, PeerParams] = {}
    best_expert: dict[str, str] = Field({}, description="by data set, the expert to beat: chosen on validation identities")
    flip_test: bool = Field(False, description="test with the mean of each picture's embedding and its mirror image's")
    ablations: AblationParams | None = None
    mixed: bool | Annotated[list[str], EachOnce, Field(min_length=2)] = Field(
        False, description="also train experts and gate on all data sets at once, or on these: see epochs_of"
    )
    pretraining: PretrainingParams | None = None
    profiling: ProfilingParams = ProfilingParams()
    release: ReleaseParams | None = None

    @property
    def remark(self) -> str:
        """What is printed under every table: the note, what is unusual in how methods are trained and tested, peers."""
        flip = "Every method is tested with flip averaging, which doubles the time of an embedding." * self.flip_test
        by_training: dict[str, list[str]] = {}
        for name, peer in self.peers.items():
            by_training.setdefault(peer.trained_on, []).append(name)
        trained = "; ".join(f"{', '.join(names)} on {where}" for where, names in by_training.items())
        peers = f"Peers are others' networks, trained elsewhere ({trained}); they run in OpenVINO on the CPU, in float32."
        of = (self.ablations and self.ablations.seeds) or []
        seeds = f"seed{'s' * (len(of) > 1)} {', '.join(map(str, of))} alone"
        variants = f"Variants of the student have {seeds}, and so has what stands beside them." * bool(of)
        taught = "Students under a teacher have a recipe of their own (student.taught)." * bool(self.student.taught)
        return " ".join(filter(None, [self.note, flip, taught, variants, peers * bool(self.peers)]))

    @property
    def networks(self) -> dict[str, NetworkParams]:
        """Experts, student and router, by their places in the file."""
        experts = {f"experts.{name}": expert for name, expert in self.experts.items()}
        return experts | {"student": self.student} | ({"moe.router": self.moe.router} if self.moe.router else {})

    @property
    def recipes(self) -> dict[str, Recipe]:
        """By their places in the file."""
        own = {f"{place}.recipe": network.recipe for place, network in self.networks.items()}
        taught = {"student.taught": self.student.taught} if self.student.taught else {}
        others = {f"ablations.sizes.{name}.recipe": size.recipe for name, size in self.sizes.items() if size.recipe}
        return own | {"moe.recipe": self.moe.recipe} | taught | others

    def trained_by(self, place: str) -> list[Recipe]:
        """The recipes of the encoder at a place of `encoders`; of a student alone and under a teacher."""
        if place != "student" and place in self.networks:
            return [self.networks[place].recipe]
        size = self.sizes[place.removeprefix("ablations.sizes.")] if place.startswith("ablations.sizes.") else None
        alone = (size and size.recipe) or self.student.recipe
        return [alone, self.student.taught or alone]

    @property
    def encoders(self) -> dict[str, EncoderParams]:
        own = {place: network.encoder for place, network in self.networks.items()}
        return own | {f"ablations.sizes.{name}": size.encoder for name, size in self.sizes.items()}

    @property
    def sizes(self) -> dict[str, SizeParams]:
        """The other students, by name."""
        return self.ablations.sizes if self.ablations else {}

    @field_validator("seeds")
    @classmethod
    def different(cls, seeds):
        if len(set(seeds)) < len(seeds):
            raise ValueError("give each seed once: a repeated one would narrow the intervals for nothing")
        return seeds

    @field_validator("shipped")
    @classmethod
    def inside(cls, folder):
        if folder and ".." in PurePosixPath(folder).parts:
            raise ValueError("a folder of the project, so '..' can't stand in its path")
        return folder

    @model_validator(mode="after")
    def consistent(self):
        for name in {"uniform", "moe"} & set(self.experts):
            raise ValueError(f"experts.{name}: the name of a teacher made of all experts; call this expert otherwise")
        if not self.distillation.teachers:
            raise ValueError("distillation.teachers: name one at least; what a student is without any is measured anyway")
        known = [*self.experts, "uniform", "moe"]
        for teacher in self.distillation.teachers:
            if teacher not in known:
                raise ValueError(f"distillation.teachers: '{teacher}' is no teacher{nearest(teacher, known)}")
        for teacher, gate in (("moe", "soft"), ("uniform", "uniform")):
            if teacher in self.distillation.teachers and gate not in self.moe.gates:
                raise ValueError(f"distillation.teachers names '{teacher}', so moe.gates must hold '{gate}'")
        for dataset, expert in self.best_expert.items():
            for name, known in ((dataset, self.datasets), (expert, self.experts)):
                if name not in known:
                    raise ValueError(f"best_expert.{dataset}: there is no '{name}'{nearest(name, list(known))}")
        for where, encoder in self.encoders.items():
            if encoder.miniature is not None and not where.startswith("experts."):
                raise ValueError(f"{where}: only experts can be miniatures; name a small timm network")
        if self.epochs_of is not None and self.epochs_of not in self.datasets:
            raise ValueError(f"epochs_of: no data set '{self.epochs_of}'{nearest(self.epochs_of, list(self.datasets))}")
        mixed = self.mixed if isinstance(self.mixed, list) else []
        if self.epochs_of is not None and self.datasets[self.epochs_of].test_only and self.epochs_of not in mixed:
            raise ValueError(f"epochs_of: nothing is trained on '{self.epochs_of}', which is test_only")
        if self.ablations is not None:
            if "moe" not in self.distillation.teachers:
                raise ValueError("ablations vary the student under the MoE, so distillation.teachers must hold 'moe'")
            for term in (term for terms in self.ablations.terms for term in terms.split("+")):
                if not self.distillation.terms.get(term):
                    has = [name for name, weight in self.distillation.terms.items() if weight]
                    raise ValueError(f"ablations.terms: '{term}' has no weight in distillation.terms{nearest(term, has)}")
            for name in self.ablations.datasets:
                if name not in self.datasets:
                    raise ValueError(f"ablations.datasets: no data set '{name}'{nearest(name, list(self.datasets))}")
                if self.datasets[name].test_only:
                    raise ValueError(f"ablations.datasets: nothing is trained on '{name}', which is test_only")
            taught = self.student.taught
            for name, size in self.sizes.items():
                if taught and size.recipe and size.recipe.epochs != taught.epochs:
                    many = f"{size.recipe.epochs} epochs and student.taught {taught.epochs}"
                    raise ValueError(f"ablations.sizes.{name}.recipe has {many}: give both as many")
            of = self.ablations.seeds
            if of and (self.seeds[0] not in of or {*of} - {*self.seeds}):
                raise ValueError(f"ablations.seeds: some of {self.seeds}, the first, which figures show, among them")
        if self.release and (self.release.dataset not in self.datasets or self.datasets[self.release.dataset].test_only):
            raise ValueError(f"release.dataset: nothing is trained on '{self.release.dataset}'")
        if sum(not spec.test_only for spec in self.datasets.values()) < 1 + (self.mixed is True):
            wanted = "two data sets or more" if self.mixed is True else "a data set"
            raise ValueError(f"{'mixed: true' if self.mixed is True else 'a study'} wants {wanted} to train on")
        for name in mixed:
            if name not in self.datasets:
                raise ValueError(f"mixed: no data set '{name}'{nearest(name, list(self.datasets))}")
        miniatures = [name for name, e in self.experts.items() if e.encoder.miniature is not None]
        if miniatures and self.pretraining is None:
            raise ValueError(f"experts.{miniatures[0]} is a miniature, so 'pretraining' must say how it is pretrained")
        for where, recipe in self.recipes.items():
            for name, spec in self.datasets.items():
                if spec.builtin and not spec.test_only and recipe.p > spec.builtin.train_ids:
                    few = f"'{name}' has {spec.builtin.train_ids} training identities"
                    raise ValueError(f"{where}.p is {recipe.p}, but data set {few}")
        return self


def nearest(word: str, known: list[str]) -> str:
    """What to say of a wrong word in a message: the one of `known` that is meant, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else (f"; valid: {', '.join(known)}" if known else "")
