"""What a study is about, as its params say: its methods, their variants, and everything that is evaluated."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from reidlib.methods import ELSEWHERE, Expert, Method, Moe, Peer, Pixels, Start, Student, parse
from reidlib.params import DistillationParams, NetworkParams, StudyParams


class Evaluated(NamedTuple):
    """What an evaluation is of; str() is its name in results."""

    method: str
    train: str
    test: str
    seed: int

    def __str__(self) -> str:
        return "|".join(map(str, self))


def trained(params: StudyParams) -> list[str]:
    """The data sets that methods are trained on, each alone; all are tested on."""
    return [name for name, spec in params.datasets.items() if not spec.test_only]


def methods(params: StudyParams) -> list[str]:
    """Every method of the study, baselines first."""
    experts = [of(name=name) for of in (Start, Expert) for name in params.experts]
    gates = [Moe(gate=gate) for gate in params.moe.gates]
    students = [Student(), *(Student(taught_by=teacher) for teacher in params.distillation.teachers)]
    return _names([Pixels(), *experts, *gates, *students])


def released(params: StudyParams) -> tuple[str, str]:
    """The student that a study hands on, method and data set; where it hands none on, the MoE's on its first data set."""
    if params.release:
        return params.release.method, params.release.dataset
    return str(Student(taught_by="moe")), trained(params)[0]


def peers(params: StudyParams) -> list[str]:
    """The networks of others that are measured beside the study's methods, and are none of them."""
    return _names([Peer(name=name) for name in params.peers])


def no_method(params: StudyParams, method: Method) -> ValueError:
    """What to raise where a study is asked for a method that it has not."""
    known = ", ".join([*methods(params), *peers(params)])
    return ValueError(f"'{method}' is no method of this study; it has {known}")


def variants(params: StudyParams) -> dict[str, list[str]]:
    """The ablations' methods by what they vary: terms, temperature, teacher, size, epochs."""
    wanted, taught = params.ablations, partial(Student, taught_by="moe")
    if wanted is None:
        return {}
    varied = {
        "terms": [taught(terms=tuple(terms.split("+"))) for terms in wanted.terms],
        "temperature": [taught(temperature=temperature) for temperature in wanted.temperatures],
        "teacher": [taught(teacher="online")] * wanted.online,
        "size": [student(size=name) for name in wanted.sizes for student in (Student, taught)],
        "epochs": [student(epochs=epochs) for epochs in wanted.epochs for student in (Student, taught)],
    }
    return {what: _names(found) for what, found in varied.items()}


def varied(params: StudyParams, method: Student) -> tuple[NetworkParams, DistillationParams]:
    """The student and its distillation as the method's variants have them. Raises ValueError where the study has no such variant."""
    student, kd = params.student, params.distillation
    if method.size is not None:
        if method.size not in params.sizes:
            raise ValueError(f"'{method}': ablations.sizes has {', '.join(params.sizes) or 'none'}")
        other = params.sizes[method.size]
        student = student.model_copy(update={"encoder": other.encoder, "recipe": other.recipe or student.recipe})
    spec = student.under(method.taught_by)
    if method.epochs is not None:
        spec = spec.model_copy(update={"recipe": spec.recipe.lasting(method.epochs)})
    if method.terms is not None:
        if unknown := set(method.terms) - set(kd.terms):
            raise ValueError(f"'{method}': '{min(unknown)}' has no weight in distillation.terms")
        kd = kd.model_copy(update={"terms": {name: kd.terms[name] for name in method.terms}})
    changes = {"temperature": method.temperature, "teacher": method.teacher}
    return spec, kd.model_copy(update={name: value for name, value in changes.items() if value is not None})


def overruled(params: StudyParams) -> list[str]:
    """The top-1 gate with every picture sent through one expert, each in turn."""
    return _names([Moe(gate="top1", expert=name) for name in params.experts if "top1" in params.moe.gates])


def mixture(params: StudyParams) -> list[str]:
    """The data sets that experts and gate are trained on all at once, too; none where the study doesn't."""
    if isinstance(params.mixed, list):
        return params.mixed
    return trained(params) if params.mixed else []


def mixed(params: StudyParams) -> str | None:
    """The name of the mixture."""
    return "+".join(mixture(params)) or None


def learnt(params: StudyParams) -> list[str]:
    """The data sets whose training pictures anything is trained on, alone or in the mixture."""
    return list(dict.fromkeys([*trained(params), *mixture(params)]))


def mixed_methods(params: StudyParams) -> list[str]:
    """The methods that are trained on all data sets at once: experts, uniform ensemble, soft gate."""
    wanted = _names([*(Expert(name=name) for name in params.experts), Moe(gate="uniform"), Moe(gate="soft")])
    return [method for method in wanted if method in methods(params)] if params.mixed else []


def ablated(params: StudyParams) -> list[str]:
    """The data sets that the variants are trained on."""
    return params.ablations.datasets if params.ablations else trained(params)


def measured(params: StudyParams) -> list[str]:
    """The methods whose costs are measured. What a loss has in it changes none: of students that are taught one is enough, and
    of the soft gate and the unbalanced one the former."""
    found = map(parse, [*methods(params), *variants(params).get("size", [])])
    same = lambda m: m.kind == "student+kd" and m.name != "moe" or m.kind == "moe" and m.name == "unbalanced"  # noqa: E731
    return [str(m) for m in found if m.kind in ("expert", "moe", "student", "student+kd") and not same(m)]


def evaluations(params: StudyParams) -> Iterator[Evaluated]:
    """Every evaluation that the study's results hold."""
    datasets = list(params.datasets)
    for method in [*methods(params), *peers(params)]:
        yield from evaluated(params, method, trained(params), datasets)
    for method in overruled(params):
        yield from evaluated(params, method, trained(params))
    for method in (variant for found in variants(params).values() for variant in found):
        yield from evaluated(params, method, ablated(params))
    for method in mixed_methods(params):
        yield from evaluated(params, method, [mixed(params)], datasets)


def evaluated(
    params: StudyParams, method: str, trains: Sequence[str], tests: Sequence[str] | None = None
) -> Iterator[Evaluated]:
    """A method trained on each of `trains` with each seed, tested there; or, with `tests`, on each of these.

    What is not trained knows no seed: one a data set, under the first. Raw pixels and starts are tested on `trains` alone,
    peers, which were trained elsewhere, wherever anything is tested.
    """
    of = parse(method)
    seeds = _seeds(params, of)
    if isinstance(of, Peer):
        yield from (Evaluated(method, ELSEWHERE, test, seeds[0]) for test in tests or trains)
    elif not of.seeded:
        yield from (Evaluated(method, dataset, dataset, seeds[0]) for dataset in trains)
    else:
        yield from (Evaluated(method, train, test, s) for train in trains for test in tests or [train] for s in seeds)


def _seeds(params: StudyParams, method: Method) -> list[int]:
    """The study's, for variants of a student those of them that the ablations name."""
    wanted = params.ablations.seeds if params.ablations and isinstance(method, Student) and method.changes() else None
    return [seed for seed in params.seeds if wanted is None or seed in wanted]


def _names(found: list[Method]) -> list[str]:
    return [str(method) for method in found]
