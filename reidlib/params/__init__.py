"""What a study is: params/*.yaml, read and checked whole before anything runs.

An unknown or doubled key, a wrong type, an impossible value is refused by its full name, with the nearest valid key
where one is near.
"""

from reidlib.params.networks import Augmentation, EncoderParams, ExpertParams, NetworkParams, Recipe
from reidlib.params.reading import ParamsError, check_names, find, load
from reidlib.params.schema import DatasetParams, DistillationParams, PretrainingParams, Runs, StudyParams, nearest
