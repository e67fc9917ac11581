"""Data: published layouts, the built-in synthetic sets, the decoded store, batches and augmentation.

Only what needs no torch is exported here; import the rest from its module, for example
``from reidlib.data.augment import augment``.
"""

from reidlib.data.layouts import DataError, Dataset, load, mixed, validation_split

__all__ = ["DataError", "Dataset", "load", "mixed", "validation_split"]
