"""The drawn data sets: two domains, in the very layouts of VeRi-776 and Market-1501.

An identity is a set of lasting traits, and some are siblings: like another in all traits but a small one. A
camera has a view angle, light, colour response and background of its own; a picture adds pose, place, size, occlusion
and JPEG loss. The same arguments give the same bytes, whatever the number of workers.
"""

import io
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image

from toydata import draw_people, draw_vehicles
from toydata.scene import Camera, camera, render

DOMAINS = {"vehicles": draw_vehicles, "people": draw_people}
FOLDERS = {"vehicles": "VeRi", "people": "Market-1501-v15.09.15"}
PARTS = {
    "vehicles": {"train": "image_train", "query": "image_query", "gallery": "image_test"},
    "people": {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
}
BATCH = 64  # pictures a worker draws at a time


@dataclass(frozen=True)
class Shot:
    """One picture to draw: all that it depends on, and what its name tells."""

    domain: str
    traits: tuple  # of the domain's Traits
    camera: Camera
    seed: tuple[int, ...]
    split: str = "gallery"  # train, query or gallery
    pid: int = 0  # -1: junk, 0: distractor
    camid: int = 1  # from 1
    frame: int = 0

    @property
    def name(self) -> str:
        """The file's name, as the data set of this domain has it."""
        if self.domain == "vehicles":
            return f"{self.pid:04d}_c{self.camid:03d}_{self.frame:08d}_0.jpg"
        pid, box = "-1" if self.pid < 0 else f"{self.pid:04d}", 0 if self.split == "query" else 1 + self.frame % 4
        return f"{pid}_c{self.camid}s1_{self.frame:06d}_{box:02d}.jpg"


def sample(domain: str, rng: np.random.Generator, like: tuple | None = None) -> tuple:
    """Random traits; with `like`, a sibling of those that differs in a single trait."""
    draw = DOMAINS[domain]
    subtle = draw.SUBTLE[rng.integers(len(draw.SUBTLE))]
    while True:
        if like is None:
            traits = draw.Traits(*(options[rng.integers(len(options))] for options in draw.OPTIONS.values()))
        else:
            options = draw.OPTIONS[subtle]
            traits = like._replace(**{subtle: options[rng.integers(len(options))]})
        if draw.sensible(traits) and traits != like:
            return traits


def identities(domain: str, count: int, seed: int, captioned: bool = False) -> list[tuple]:
    """`count` different sets of traits, siblings next to each other.

    By its checksum, every set of traits there can be belongs either to the captioned pictures or to the data sets: the
    two never share an identity, whatever their seeds.
    """
    rng, found = np.random.default_rng([seed, list(DOMAINS).index(domain), captioned]), {}
    while len(found) < count:
        like = next(reversed(found), None) if rng.random() < 0.15 else None
        traits = sample(domain, rng, like)
        if (zlib.crc32(repr(tuple(traits)).encode()) % 4 == 0) == captioned:
            found.setdefault(traits)
    return list(found)


def cameras(domain: str, count: int, rng: np.random.Generator) -> list[Camera]:
    """`count` cameras that look from all around, the first ones from the most different sides."""
    draw = DOMAINS[domain]
    return [camera(draw.AZIMUTHS[i % len(draw.AZIMUTHS)], draw.SCALE, rng) for i in range(count)]


def _jpeg(shot: Shot) -> bytes:
    """Draws one picture: vehicles around 128 x 128, people 128 x 64 (height x width)."""
    rng = np.random.default_rng(shot.seed)
    mesh, distance = DOMAINS[shot.domain].mesh(shot.traits, rng)
    size, yaw, tight, shift = (64, 128), rng.uniform(-18, 18), (0.85, 0.97), (0.0, 0.0)
    if shot.domain == "vehicles":  # a detector's box: the wider, the more the vehicle shows of its side
        aspect = (0.9 + 0.45 * abs(np.sin(np.radians(shot.camera.azimuth)))) * rng.uniform(0.92, 1.08)
        size, yaw = (round(128 * aspect**0.5), round(128 / aspect**0.5)), 0.64 * yaw
    if shot.pid < 0:  # a bad detection: a part of the body, half of it, or mostly background
        kind, side = rng.integers(3), rng.choice([-1, 1])
        tight = [(2.2, 3.0), (0.8, 1.2), (0.35, 0.5)][kind]
        shift = [(0.0, side * rng.uniform(0.5, 0.8)), (side * rng.uniform(0.35, 0.7), 0.0), (0.0, side * 0.25)][kind]
    picture = render(mesh, shot.camera, size, rng, distance=distance, yaw=yaw, tight=tight, shift=shift, occlusion=0.15)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=shot.camera.quality)
    return file.getvalue()


def _save(shots: list[Shot], folder: Path) -> None:
    for shot in shots:
        (folder / PARTS[shot.domain][shot.split] / shot.name).write_bytes(_jpeg(shot))


def _decoded(shots: list[Shot], size: tuple[int, int]) -> np.ndarray:
    pictures = (Image.open(io.BytesIO(_jpeg(shot))).resize(size[::-1], Image.Resampling.BILINEAR) for shot in shots)
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


def _in_parallel(function, shots: list[Shot], extra, workers: int | None) -> Iterator:
    """Calls function(some shots, extra) for all shots in order, in several processes where that pays."""
    workers = min(workers or os.cpu_count() or 1, -(-len(shots) // BATCH))
    batches = [shots[i : i + BATCH] for i in range(0, len(shots), BATCH)]
    # joblib's processes are fresh ones: safe beside a notebook's threads, and no caller needs a __main__ guard
    yield from Parallel(n_jobs=workers, return_as="generator")(delayed(function)(batch, extra) for batch in batches)


def write(domain: str, root: str | Path, *, train_ids: int, test_ids: int, cameras: int, images: int, seed: int,
          workers: int | None = None) -> Path:  # fmt: skip
    """Draws a data set below root and returns its folder: "vehicles" in VeRi-776's layout, "people" in Market-1501's.

    An identity is seen by two or more of the cameras, by each in `images` pictures; of a test identity, one of them is
    a query. A folder that is there already is returned as it is; an interrupted call leaves none.

    Raises ValueError for an unknown domain, and for numbers that leave nothing to learn or to find.
    """
    _check(domain)
    given = {"train_ids": (train_ids, 1), "test_ids": (test_ids, 1), "cameras": (cameras, 2), "images": (images, 2)}
    for name, (value, least) in given.items():
        if value < least:
            raise ValueError(f"drawn {domain}: {name} is {value}; give {least} or more")
    folder = Path(root) / FOLDERS[domain]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        draft = Path(temporary) / folder.name
        for part in PARTS[domain].values():
            (draft / part).mkdir(parents=True)
        shots = _plan(domain, train_ids, test_ids, cameras, images, seed)
        for _ in _in_parallel(_save, shots, draft, workers):
            pass
        if domain == "vehicles":
            _write_lists(draft, shots)
        if not folder.exists():
            draft.rename(folder)
    return folder


def captioned(domains: Sequence[str], n: int, size: tuple[int, int], seed: int,
              workers: int | None = None) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """n pictures uint8 [n, 3, height, width] of the domains in turn, and a caption for each.

    No identity is one that `write` draws, for any seed.
    """
    for domain in domains:
        _check(domain)
    rng, shots = np.random.default_rng([seed, 3]), []
    traits = {domain: identities(domain, -(-n // len(domains)), seed, captioned=True) for domain in domains}
    lenses = {domain: cameras(domain, 32, rng) for domain in domains}
    for i in range(n):
        k, domain = i // len(domains), domains[i % len(domains)]
        shots.append(Shot(domain, traits[domain][k], lenses[domain][rng.integers(32)], (seed, 3, i)))
    pictures = np.concatenate(list(_in_parallel(_decoded, shots, size, workers)))
    return pictures, [DOMAINS[shot.domain].caption(shot.traits, shot.camera.azimuth) for shot in shots]


def _check(domain: str) -> None:
    if domain not in DOMAINS:
        raise ValueError(f"drawn data: no domain {domain!r}; there are {', '.join(DOMAINS)}")


def _plan(domain: str, train_ids: int, test_ids: int, count: int, images: int, seed: int) -> list[Shot]:
    """Who is seen by which camera how often."""
    rng, plan, known = np.random.default_rng([seed, list(DOMAINS).index(domain), 4]), [], train_ids + test_ids
    lenses, pids = cameras(domain, count, rng), 1 + rng.permutation(known)
    everyone = identities(domain, known + (known // 4 + 2 if domain == "people" else 0), seed)

    def take(traits: tuple, split: str, pid: int, camid: int) -> None:
        shot_seed, frame = (seed, 4, len(plan)), 7 * len(plan) + int(rng.integers(7))
        plan.append(Shot(domain, traits, lenses[camid - 1], shot_seed, split, pid, camid, frame))

    for i, traits in enumerate(everyone[:known]):
        number = count if rng.random() < 0.75 else rng.integers(2, count + 1)
        for camid in np.sort(1 + rng.permutation(count)[:number]).tolist():
            for k in range(images):
                split = "train" if i < train_ids else "gallery" if k else "query"
                take(traits, split, int(pids[i]), camid)
    for traits in everyone[known:]:  # others who pass by: distractors, and a bad crop of each
        for pid in (0, 0, -1):
            take(traits, "gallery", pid, int(rng.integers(1, count + 1)))
    return plan


def _write_lists(folder: Path, shots: list[Shot]) -> None:
    """Finishes VeRi-776's layout: its lists and labels, and the query pictures again in the gallery."""
    kinds = {"color": draw_vehicles.PAINTS, "type": draw_vehicles.TYPES}
    splits = {"train": ("train",), "query": ("query",), "test": ("query", "gallery")}
    lists = {f"list_{kind}.txt": [f"{i} {word}" for i, word in enumerate(words, 1)] for kind, words in kinds.items()}
    for name, members in splits.items():
        chosen = [shot for shot in shots if shot.split in members]
        lists[f"name_{name}.txt"] = [shot.name for shot in chosen]
        if name == "query":
            for shot in chosen:
                shutil.copyfile(folder / "image_query" / shot.name, folder / "image_test" / shot.name)
            continue
        items = [
            f'<Item imageName="{shot.name}" vehicleID="{shot.pid:04d}" cameraID="c{shot.camid:03d}" '
            f'colorID="{1 + draw_vehicles.PAINTS.index(shot.traits.colour)}" '
            f'typeID="{1 + draw_vehicles.TYPES.index(shot.traits.type)}" />'
            for shot in chosen
        ]
        root = {"train": "TrainingImages", "test": "TestImages"}[name]
        head = ['<?xml version="1.0" encoding="gb2312"?>', f'<{root} Version="1.0">', f'<Items number="{len(items)}">']
        lists[f"{name}_label.xml"] = [*head, *items, "</Items>", f"</{root}>"]
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="gb2312")
