"""The schema of what a params file says of a network: its encoder and how it is trained."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_serializer,
    model_validator,
)

Size = tuple[PositiveInt, PositiveInt]
Fraction = Annotated[float, Field(ge=0, le=1)]
# YAML reads a bare no as false
Precision = Annotated[Literal["no", "bf16"], BeforeValidator(lambda value: "no" if value is False else value)]
Weight = Annotated[float, Field(ge=0)]  # of a term
Name = Annotated[str, Field(pattern=r"^[\w-]+$")]  # becomes part of file names


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EncoderParams(Strict):
    """An image encoder by name, e.g. open_clip:ViT-B-16, align:kakaobrain/align-base, timm:mobilenetv2_100."""

    name: str = Field(pattern=r"^(open_clip|align|timm):.+")
    weights: str | None = Field(None, description="a pretrained tag, a file (below REIDLIB_WEIGHTS); null: random")
    size: Size | None = Field(None, description="height, width in pixels the network sees; null: the data set's")
    miniature: dict | None = Field(None, description="a small configuration of the same class, for built-in data")
    mean: tuple[float, float, float] | None = Field(None, description="input mean, where not the encoder's own")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    options: dict = Field({}, description="further arguments of timm.create_model, e.g. output_stride, drop_path_rate")

    @property
    def source(self) -> str:
        """The library that has the network: open_clip, align (transformers), timm."""
        return self.name.partition(":")[0]

    @model_validator(mode="after")
    def sound_miniature(self):
        if self.miniature is not None and self.name.startswith("timm:"):
            raise ValueError(f"{self.name} can't be a miniature; only open_clip and align encoders can")
        if self.miniature is not None and self.size is None:
            raise ValueError(f"{self.name}: a miniature is pretrained at one size, so it needs 'size'")
        if self.options and not self.name.startswith("timm:"):
            raise ValueError(f"{self.name} takes no 'options'; only timm encoders do")
        return self

    @model_serializer(mode="wrap")
    def without_empty_options(self, dump):
        """Networks were trained before there were options: without any, what they are asked for is what it was."""
        return {name: value for name, value in dump(self).items() if name != "options" or value}


class Augmentation(Strict):
    """Whole-tensor augmentation of training pictures."""

    flip: Fraction = 0.5
    pad: int = Field(4, ge=0, description="pixels of padding before the random crop")
    erase: Fraction = Field(0.5, description="probability of random erasing")
    jitter: Fraction = Field(0.0, description="strength of brightness and contrast changes")


class Stage(Strict):
    """The first epochs of a training, at another size than the rest: small pictures first (Tan and Le 2021)."""

    epochs: PositiveInt
    size: Size


class Recipe(Strict):
    """How one network is trained."""

    epochs: PositiveInt
    p: int = Field(16, ge=2, description="identities in a batch")
    k: int = Field(4, ge=2, description="pictures of each identity in a batch")
    lr: PositiveFloat = Field(description="peak learning rate of AdamW")
    weight_decay: float = Field(1e-4, ge=0)
    warmup: float = Field(1.0, ge=0, description="epochs of linear warm-up; cosine to zero afterwards")
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning rate factor from each layer to the one below")
    frozen: Fraction = Field(0.0, description="share of the encoder's layers, input first, not trained")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    margin: float | None = Field(0.3, gt=0, description="triplet margin; null: soft margin")
    triplet: float = Field(1.0, ge=0, description="weight of the triplet loss")
    triplet_on: Literal["raw", "unit", "embedding"] = Field(
        "raw", description="features as they are, of length 1, or what is retrieved by: after the BNNeck, of length 1"
    )
    head_lr: PositiveFloat = Field(1.0, description="learning rate factor of what is new: neck, classifier, projection")
    ema: float = Field(0.0, ge=0, lt=1, description="decay a step of averaged weights, in which training ends; 0: the last")
    stages: list[Stage] = Field([], description="of pictures: first epochs at other sizes; the rest at the network's own")
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def stages_end(self):
        if sum(stage.epochs for stage in self.stages) >= self.epochs:
            raise ValueError(f"stages: they take all of the {self.epochs} epochs; leave some for the network's own size")
        return self

    def lasting(self, epochs: int) -> "Recipe":
        """The same recipe over another number of epochs, its stages as long in proportion."""
        stages, left = [], epochs
        for stage in self.stages:
            length = min(round(stage.epochs * epochs / self.epochs), left - 1)
            stages += [stage.model_copy(update={"epochs": length})] if length > 0 else []
            left = epochs - sum(stage.epochs for stage in stages)
        return self.model_copy(update={"epochs": epochs, "stages": stages})


class NetworkParams(Strict):
    """A network and how it is trained: the student, the router."""

    encoder: EncoderParams
    recipe: Recipe
    precision: Precision | None = Field(None, description="of this network alone; null: the study's")


class ExpertParams(NetworkParams):
    stands_in_for: str | None = Field(None, description="what the paper has in this one's place, if it is a stand-in")


class StudentParams(NetworkParams):
    taught: Recipe | None = Field(None, description="recipe under a teacher, where another is better there; null: the same")

    @model_validator(mode="after")
    def as_long(self):
        if self.taught and self.taught.epochs != self.recipe.epochs:
            raise ValueError(
                f"taught has {self.taught.epochs} epochs and recipe {self.recipe.epochs}: give both as many, or what a teacher "
                "adds can't be told from what longer training does"
            )
        return self

    def under(self, teacher: str | None) -> NetworkParams:
        """The student as it is trained under a teacher, or alone (None)."""
        return self.model_copy(update={"recipe": self.taught}) if teacher and self.taught else self


class SizeParams(EncoderParams):
    """Another student: its encoder, and a recipe of its own where the student's is not right for it."""

    recipe: Recipe | None = Field(
        None, description="alone, and under a teacher too without student.taught; null: the student's"
    )

    @property
    def encoder(self) -> EncoderParams:
        return EncoderParams(**self.model_dump(exclude={"recipe"}))
