"""What a study is: params/*.yaml, read and checked whole before anything runs.

An unknown or doubled key, a wrong type, an impossible value is refused by its full name, with the nearest valid key
where one is near.
"""

from reidlib.params.reading import ParamsError, check_names, find, load  # noqa: I001
from reidlib.params.schema import (
    Augmentation, DatasetParams, DistillationParams, EncoderParams, NetworkParams, PretrainingParams, Recipe, Runs,
    StudyParams, nearest,
)  # fmt: skip
