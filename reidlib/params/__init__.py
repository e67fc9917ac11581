"""What a study is: params/*.yaml, read and checked whole before anything runs.

An unknown or doubled key, a wrong type, an impossible value is refused by its full name, with the nearest valid key
where one is near.
"""

from reidlib.params.reading import ParamsError, check_names, find, load, nearest
from reidlib.params.schema import (
    AblationParams,
    Augmentation,
    Builtin,
    DatasetParams,
    DistillationParams,
    EncoderParams,
    ExpertParams,
    MoeParams,
    NetworkParams,
    PretrainingParams,
    ProfilingParams,
    Recipe,
    Runs,
    StudyParams,
)

__all__ = [
    "AblationParams", "Augmentation", "Builtin", "DatasetParams", "DistillationParams", "EncoderParams", "ExpertParams",
    "MoeParams", "NetworkParams", "ParamsError", "PretrainingParams", "ProfilingParams", "Recipe", "Runs", "StudyParams",
    "check_names", "find", "load", "nearest",
]  # fmt: skip
