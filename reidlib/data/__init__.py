"""Data: layouts on disk, hashes of files, the decoded store, batches and augmentation.

Only what needs no torch is exported here; import the rest from its module, for example
``from reidlib.data.augment import augment``.
"""

from reidlib.data.dataset import DataError, Dataset, mixed, validation_split
from reidlib.data.hashes import file_hashes
from reidlib.data.layouts import LAYOUTS, load
