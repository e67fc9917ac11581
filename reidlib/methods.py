"""What a method is: parsed, printed and labelled here and nowhere else.

    pixels                                raw pixels, the floor
    start:<name>                          an expert's encoder as it was pretrained: what fine-tuning has to beat
    expert:<name>                         a fine-tuned expert of the study
    moe:<gate>                            the experts under a gate: soft, top1, uniform, concat, router, ...
    moe:top1/expert=<name>                that gate overruled: every picture through the one expert
    student                               the student alone
    student+kd:<teacher>                  taught by an expert's name, "uniform" or "moe" (the soft gate)
    peer:<name>                           a published network that was trained elsewhere, to be measured beside these

A student may differ from the study's own in "/terms=a+b", "/temperature=x", "/teacher=online", "/size=<name>" and
"/epochs=n", in this order; "/configuration=<study>" says that another study's networks were measured.
"""

from dataclasses import dataclass, fields, replace

ENSEMBLES = {"moe": "soft", "uniform": "uniform"}  # teachers made of all experts, and the gate that each is


@dataclass(frozen=True)
class Method:
    """A method; one of the classes below. str() prints it as it stands in results.csv."""

    configuration: str | None = None
    kind = ""  # pixels, start, expert, moe, student, student+kd or peer: what figures colour by
    name = ""  # which of its kind: the expert's, gate's or teacher's; "" where there is one alone
    seeded = True  # False where nothing is trained: it knows no seed, and is evaluated once a data set

    def changes(self) -> dict[str, str]:
        """What differs from the method it is a variant of, in the order of printing: {"temperature": "4"}."""
        own = [field.name for field in fields(self) if field.name not in ("name", "gate", "taught_by", "configuration")]
        values = {name: getattr(self, name) for name in [*own, "configuration"]}
        return {name: _print(value) for name, value in values.items() if value is not None}

    @property
    def base(self) -> "Method":
        """The method that this one is a variant of; itself where it is none."""
        return replace(self, **dict.fromkeys(self.changes()))

    def __str__(self) -> str:
        start = f"{self.kind}:{self.name}" if self.name else self.kind
        return "/".join([start, *(f"{what}={value}" for what, value in self.changes().items())])


@dataclass(frozen=True)
class Pixels(Method):
    kind = "pixels"
    seeded = False


@dataclass(frozen=True)
class Start(Method):
    name: str = ""
    kind = "start"
    seeded = False


@dataclass(frozen=True)
class Expert(Method):
    name: str = ""
    kind = "expert"


@dataclass(frozen=True)
class Moe(Method):
    """The experts under a gate. expert: the one that all pictures are sent through, whatever the gate says."""

    gate: str = "soft"
    expert: str | None = None
    kind = "moe"

    @property
    def name(self) -> str:
        return self.gate


@dataclass(frozen=True)
class Student(Method):
    """The student, alone or under a teacher. terms, ...: where it differs from the study's own."""

    taught_by: str | None = None
    terms: tuple[str, ...] | None = None
    temperature: float | None = None
    teacher: str | None = None  # "cached" or "online"
    size: str | None = None
    epochs: int | None = None

    @property
    def kind(self) -> str:
        return "student+kd" if self.taught_by else "student"

    @property
    def name(self) -> str:
        return self.taught_by or ""


@dataclass(frozen=True)
class Peer(Method):
    name: str = ""
    kind = "peer"
    seeded = False


ELSEWHERE = "(elsewhere)"  # where a peer was trained, as results have it: no data set can be called so


def parse(text: "str | Method") -> Method:
    """The method that `text` names; a Method is returned as it is.

    >>> parse("student+kd:moe/temperature=4")
    Student(configuration=None, taught_by='moe', terms=None, temperature=4.0, teacher=None, size=None, epochs=None)

    Raises ValueError where it is none, saying what would be.
    """
    if isinstance(text, Method):
        return text
    start, *variants = text.split("/")
    kind, colon, name = start.partition(":")
    given = dict(variant.partition("=")[::2] for variant in variants)
    configuration = given.pop("configuration", None)
    try:
        once = len(given) + (configuration is not None) == len(variants)
        if not once or not all(given.values()) or bool(colon) != bool(name):
            raise ValueError("write each change once, as /what=value")
        match kind, bool(name):
            case "pixels", False:
                return Pixels(configuration, **given)
            case "start", True:
                return Start(configuration, name, **given)
            case "expert", True:
                return Expert(configuration, name, **given)
            case "moe", True:
                return Moe(configuration, name, **given)
            case ("student", False) | ("student+kd", True):
                return Student(configuration, name or None, **_student_changes(given, taught=bool(name)))
            case "peer", True:
                return Peer(configuration, name, **given)
        known = "pixels, start:<name>, expert:<name>, moe:<gate>, student, student+kd:<teacher>, peer:<name>"
        raise ValueError(f"methods are {known}")
    except TypeError:  # a change that the class doesn't know
        raise ValueError(f"'{text}' is no method: {kind} has no variant '{next(iter(given))}'") from None
    except ValueError as error:
        raise ValueError(f"'{text}' is no method: {error}") from None


def _student_changes(given: dict[str, str], taught: bool) -> dict:
    changes: dict = dict(given)
    if not taught and (of_teaching := sorted({"terms", "temperature", "teacher"} & set(changes))):
        raise ValueError(f"a student without a teacher has no {', '.join(of_teaching)}")
    if "terms" in changes:
        changes["terms"] = tuple(changes["terms"].split("+"))
    if "temperature" in changes:
        changes["temperature"] = float(changes["temperature"])
        if not 0 < changes["temperature"] < float("inf"):
            raise ValueError("a temperature is a number above 0")
    if "epochs" in changes:
        changes["epochs"] = int(changes["epochs"])
        if changes["epochs"] < 1:
            raise ValueError("epochs are a whole number above 0")
    if changes.get("teacher", "cached") not in ("cached", "online"):
        raise ValueError("a teacher is cached or online")
    return changes


def teacher(name: str) -> Method:
    """The method that a teacher is.

    >>> str(teacher("moe")), str(teacher("clip"))
    ('moe:soft', 'expert:clip')
    """
    return Moe(gate=ENSEMBLES[name]) if name in ENSEMBLES else Expert(name=name)


def taught_by(method: str | Method) -> Student:
    """The student that a method teaches. Raises ValueError where it is no teacher.

    >>> str(taught_by("moe:soft"))
    'student+kd:moe'
    """
    method = parse(method)
    names = {teacher(name): name for name in ENSEMBLES} | ({method: method.name} if isinstance(method, Expert) else {})
    if method not in names:
        raise ValueError(f"'{method}' is no teacher: experts, moe:soft and moe:uniform are")
    return Student(taught_by=names[method])


TAUGHT = str(Student(taught_by="moe"))  # what the paper calls MoE-KD
_LABELS = {
    "pixels": "Raw pixels", "moe:soft": "MoE, soft gate", "moe:top1": "MoE, top-1 gate", "moe:router": "MoE, router",
    "moe:uniform": "Uniform ensemble", "moe:concat": "Concatenation",
    "student": "Student", "student+kd:moe": "Student + KD from MoE", "student+kd:uniform": "Student + KD from ensemble",
}  # fmt: skip


def label(method: str | Method) -> str:
    """A method's name for readers.

    >>> label("expert:clip"), label("student/size=96")
    ('CLIP expert', 'Student, size = 96')
    """
    method = parse(method)
    name = method.name.upper() if method.name in ("clip", "align") else method.name
    unnamed = {
        "start": f"{name}, not fine-tuned",
        "expert": f"{name} expert",
        "moe": f"MoE, {name} gate",
        "student+kd": f"Student + KD from {name}",
        "peer": f"{name} (peer)",
    }
    start = _LABELS.get(str(method.base)) or unnamed[method.kind]
    return ", ".join([start, *(f"{what} = {value}" for what, value in method.changes().items())])


def _print(value) -> str:
    if isinstance(value, tuple):
        return "+".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
