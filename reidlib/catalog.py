"""A study's data sets by their names in its params file: opened once, drawn if they are drawn, hashed by their bytes."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from reidlib.agenda import learnt
from reidlib.content import digest
from reidlib.data import DataError, Dataset, load, mixed, validation_split
from reidlib.data.hashes import file_hashes
from reidlib.params import DatasetParams, StudyParams
from reidlib.sources import reached


@dataclass(frozen=True)
class Catalog:
    """The data sets of `params`. `root` is the project's folder; `validation` the share of training identities held out.

    A name is a key of the params' datasets, or several joined by "+": all of them at once.
    """

    params: StudyParams
    root: Path
    validation: float = 0.0
    _opened: dict = field(default_factory=dict, repr=False)

    def dataset(self, name: str) -> Dataset:
        """The data set; one that is drawn is drawn first if need be. Raises DataError."""
        if name not in self._opened:
            parts = name.split("+")
            for part in parts:
                if part not in self.params.datasets:
                    raise DataError(f"the study has no data set '{part}'; it has {', '.join(self.params.datasets)}")
            several = len(parts) > 1
            self._opened[name] = mixed({p: self.dataset(p) for p in parts}) if several else self._open(name)
        return self._opened[name]

    def _open(self, name: str) -> Dataset:
        spec = self.params.datasets[name]
        data_root = folder(self.root, "REIDLIB_DATA", self.params.data_root, "data")
        root = self._drawn(spec) if spec.builtin else data_root / spec.root
        places = [folder / os.path.expanduser(spec.table) for folder in (self.root, data_root, root)] if spec.table else []
        options = {"table": next((file for file in places if file.is_file()), places[0])} if places else {}
        dataset = load(spec.layout, root, trained=name in learnt(self.params), **options)
        return validation_split(dataset, self.validation, seed=0) if self.validation else dataset

    def _drawn(self, spec: DatasetParams) -> Path:
        import toydata  # here, for no real study needs it

        drawing = digest([spec.builtin, sorted(reached(toydata.write).values())])
        return toydata.write(root=self.root / "artifacts" / "drawn" / drawing, **spec.builtin.model_dump())

    @property
    def hash_cache(self) -> Path:
        """Where files' hashes are remembered, see `data.hashes.file_hashes`."""
        return self.root / "artifacts" / "hashes.sqlite"

    def frame(self, name: str, part: str) -> pd.DataFrame:
        """The pictures of a part ("train", "query", "gallery"): columns path, pid, camid and the layout's others."""
        return getattr(self.dataset(name), part)

    def bytes_hash(self, name: str, part: str) -> str:
        """Hash of the bytes of all pictures of a part, in order."""
        place = "bytes", name, part
        if place not in self._opened:
            self._opened[place] = digest(file_hashes(self.frame(name, part)["path"], self.hash_cache))
        return self._opened[place]

    def shared_pictures(self, name: str) -> list[str]:
        """What is amiss where one picture, by its bytes, is trained on and tested with, or is a query's match to itself."""
        query, gallery = (
            self.frame(name, part).assign(bytes=lambda frame: file_hashes(frame["path"], self.hash_cache))
            for part in ("query", "gallery")
        )
        found = []
        for other in learnt(self.params):  # another set's pictures may be these as well
            train = set(file_hashes(self.frame(other, "train")["path"], self.hash_cache))
            if leaked := query["bytes"].isin(train).sum() + gallery["bytes"].isin(train).sum():
                where = "train" if other == name else f"{other}'s train"
                said = f"{leaked} pictures of query and gallery are, byte by byte, in {where} too"
                found.append(f"{said}: scores are too high")
        pairs = query.merge(gallery, on=["bytes", "pid"])
        if same := pairs.loc[pairs["camid_x"] != pairs["camid_y"], "path_x"].nunique():
            found.append(f"{same} queries have themselves, byte by byte, as a match in another camera: scores are too high")
        return found

    def size(self, name: str) -> tuple[int, int]:
        """Height and width in pixels at which pictures are kept; several data sets at once have the first one's."""
        return self.params.datasets[name.partition("+")[0]].size

    def labels(self, name: str) -> np.ndarray:
        """Training identities numbered from 0, int64 [N]. Raises DataError where a data set is for testing alone."""
        for part in name.split("+"):
            if part in self.params.datasets and part not in learnt(self.params):
                others = ", ".join(learnt(self.params))
                raise DataError(f"nothing is trained on '{part}', which is test_only; this study trains on {others}")
        return np.unique(self.frame(name, "train")["pid"], return_inverse=True)[1].astype(np.int64)


def folder(root: Path, variable: str, key: str | None, default: str) -> Path:
    """Where data or weights lie: the environment variable, else the params' key, else a folder of the project."""
    return root / os.path.expanduser(os.environ.get(variable) or key or default)
