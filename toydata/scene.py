"""A tiny 3-D scene: convex parts with shaded faces in front of a street, seen by a fixed camera, drawn by Pillow.

Metres; the subject stands at the origin and heads along x, y is to its left, z up. Back-face culling and a painter's
sort of whole parts deal with hidden surfaces, exactly enough for convex parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CORNERS = 16  # every face is padded to this many corners, so that one array holds them all
COLOURS = {
    "white": (236, 236, 232), "black": (34, 34, 38), "gray": (134, 138, 142), "red": (196, 32, 34),
    "blue": (36, 74, 190), "green": (30, 132, 62), "yellow": (240, 206, 34), "orange": (240, 122, 22),
    "brown": (112, 68, 38), "golden": (194, 160, 92), "purple": (116, 46, 146), "pink": (240, 140, 176),
}  # fmt: skip


def coloured(kinds: Sequence[str], colours: Sequence[str], plain: int = 0) -> tuple[str, ...]:
    """Options such as "red cap", for each kind and colour, and "none" as often as `plain` says."""
    return ("none",) * plain + tuple(f"{colour} {kind}" for kind in kinds for colour in colours)


@dataclass(frozen=True)
class Camera:
    """Where a camera stands, what stands behind the subject, and how the camera renders light and colour."""

    azimuth: float  # degrees; 0 sees the subject's front, 90 its left side
    elevation: float  # degrees above the horizon
    light: tuple[float, ...]  # unit vector towards the sun
    sun: float
    ambient: float
    mix: tuple[float, ...]  # 3 x 4 matrix: saturation and white balance
    gamma: float
    blur: float  # pixels
    noise: float  # grey levels
    quality: int  # of the JPEG file
    scenery: int  # seed of the background
    scale: float  # of the background: 1 suits vehicles


def camera(azimuth: float, scale: float, rng: np.random.Generator) -> Camera:
    """A random camera that looks at the subject from about that azimuth (degrees)."""
    turn, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(35, 65))
    saturation, sun, gains = rng.uniform(0.75, 1.2), rng.uniform(0.25, 0.75), rng.uniform(0.84, 1.16, (3, 1))
    grey = np.array([0.299, 0.587, 0.114])
    mix = gains * rng.uniform(0.88, 1.12) * (saturation * np.eye(3) + (1 - saturation) * grey)
    return Camera(
        azimuth=azimuth + rng.uniform(-10, 10), elevation=rng.uniform(10, 30) * scale**0.5,
        light=(np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)),
        sun=sun, ambient=rng.uniform(1.0, 1.15) - 0.75 * sun,
        mix=tuple(np.hstack([mix, rng.uniform(-8, 14, (3, 1))]).ravel()), gamma=rng.uniform(0.8, 1.3),
        blur=rng.uniform(0.2, 0.9), noise=rng.uniform(1.5, 5), quality=int(rng.integers(60, 92)),
        scenery=int(rng.integers(2**31)), scale=scale,
    )  # fmt: skip


@dataclass
class Mesh:
    """Faces in drawing order; a part is a convex group of faces that is sorted by its depth as one."""

    faces: list = field(default_factory=list)  # [n, CORNERS, 3] each
    colours: list = field(default_factory=list)  # [n, 3] each
    parts: list = field(default_factory=list)  # part of each face
    bias: list = field(default_factory=list)  # metres added to a part's depth: the larger, the earlier it is drawn

    def add(self, polygons: np.ndarray, colours) -> None:
        """Adds polygons [n, k, 3], k <= CORNERS, to the latest part; colours: one, a grey level, or [n, 3]."""
        pad = np.repeat(polygons[:, -1:], CORNERS - polygons.shape[1], axis=1)
        self.faces.append(np.concatenate([polygons, pad], axis=1))
        self.colours.append(np.broadcast_to(np.asarray(colours, float), (len(polygons), 3)))
        self.parts += [len(self.bias) - 1] * len(polygons)

    def loft(self, rings, colours, bias: float = 0.0) -> np.ndarray:
        """A part stretched over rings [n, m, 3], bottom first, closed by caps; colours: one, or [n - 1, m, 3].

        Returns its side faces [n - 1, m, 4, 3], whose first edge runs along the lower ring, for `patch`.
        """
        rings = np.asarray(rings, float)
        following = np.roll(rings, -1, axis=1)
        sides = np.stack([rings[:-1], following[:-1], following[1:], rings[1:]], axis=2)
        colours = np.broadcast_to(np.asarray(colours, float), (*sides.shape[:2], 3))
        self.bias.append(bias)
        self.add(sides.reshape(-1, 4, 3), colours.reshape(-1, 3))
        self.add(rings[[0, -1]], colours[[0, -1], 0])
        return sides

    def box(self, low, high, colour, bias: float = 0.0) -> None:
        """An upright box between two corners."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        self.loft([[(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)] for z in (z0, z1)], colour, bias)

    def patch(self, quad: np.ndarray, u0: float, u1: float, v0: float, v1: float, colour) -> None:
        """Paints the rectangle [u0, u1] x [v0, v1] of a quad: u along its first edge, v along its second."""
        u, v = np.array([u0, u1, u1, u0])[:, None], np.array([v0, v0, v1, v1])[:, None]
        a, b, c, d = quad
        self.add(((1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c))[None], colour)

    def disc(self, centre, radius: float, axis: int, colour) -> None:
        """A flat upright disc across an axis: 0 for one that faces forwards, 1 for one that faces a side."""
        angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
        points = np.tile(np.asarray(centre, float), (CORNERS, 1))
        points[:, 1 - axis] += radius * np.cos(angle)
        points[:, 2] += radius * np.sin(angle)
        self.add(points[None], colour)


class View:
    """Perspective projection by a camera at a distance (metres) from a point at a height (metres) over the origin."""

    def __init__(self, camera: Camera, distance: float, height: float):
        a, e = np.radians([camera.azimuth, camera.elevation])
        self.towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        self.right = np.array([-np.sin(a), np.cos(a), 0])
        self.up = np.cross(self.towards, self.right)
        self.eye, self.distance = distance * self.towards + [0, 0, height], distance

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points [..., 3] -> image points [..., 2] in metres at that point's depth (v downwards), depth [...]."""
        offset = points - self.eye
        depth = -offset @ self.towards
        image = np.stack([offset @ self.right, -offset @ self.up], axis=-1)
        return image * (self.distance / np.maximum(depth, 0.1))[..., None], depth


@lru_cache(maxsize=64)
def background(camera: Camera) -> tuple[Image.Image, np.ndarray]:
    """The empty street, at twice the pictures' size and large enough to cut them out, and where its origin lies."""
    rng, s = np.random.default_rng(camera.scenery), camera.scale
    view, zoom, centre = View(camera, 14 * s, 0.85), 22 / s, np.array([150.0, 124.0])
    v, u = (np.indices((220, 300)) - centre[::-1, None, None]) / zoom  # metres; then the pixels' rays
    rays = u[..., None] * view.right - v[..., None] * view.up - view.distance * view.towards
    ground = np.where(rays[..., 2] < -1e-6, -view.eye[2] / np.minimum(rays[..., 2], -1e-6), 1e3)
    x, y = ((view.eye + ground[..., None] * rays) / s)[..., :2].transpose(2, 0, 1)
    light, edge, period = 0.55 + 0.5 * camera.sun, rng.uniform(3, 5), rng.uniform(2, 6)
    road = np.array([(92, 92, 96), (136, 132, 128), (112, 98, 90), (70, 74, 84)][rng.integers(4)]) * light
    verge = np.array([(96, 138, 62), (168, 160, 148), (186, 160, 112), (110, 112, 116)][rng.integers(4)]) * light
    image = np.where((abs(y) < edge)[..., None], road, verge)
    marks = rng.integers(4)
    if marks < 2:  # lane marks
        image[(abs(abs(y) - 1.7) < 0.08) & (x % period < period / 2)] = [(230, 230, 225), (225, 190, 60)][marks]
    elif marks == 2:  # zebra crossing, or paving
        image[(abs(y) < edge) & (x % 1.2 < 0.5)] = road * 0.7 + 70
    image[abs(abs(y) - edge) < 0.15] = road * 0.6 + 80
    image[ground >= 1e3 - 1] = [(150, 186, 222), (205, 210, 214), (120, 150, 200), (224, 208, 190)][rng.integers(4)]
    for side in (-1, 1):  # walls along the street, but not the one behind the camera
        at, top, kind = side * s * (edge + rng.uniform(1, 5)), s * rng.uniform(2, 7), rng.integers(5)
        colour = np.array([(170, 150, 130), (150, 84, 66), (52, 92, 44), (150, 150, 156), (196, 190, 176)][kind])
        hit = (at - view.eye[1]) / np.where(rays[..., 1] == 0, 1e-9, rays[..., 1])
        x, z = view.eye[0] + hit * rays[..., 0], view.eye[2] + hit * rays[..., 2]
        column = x // period * 0.37 % 1  # a number for each bay of the wall
        seen = (hit > 0) & (hit < ground) & (z < top * (0.7 + 0.3 * column if kind == 2 else 1))
        seen &= view.eye[1] * side < at * side
        shade = 0.75 + 0.4 * column if kind == 2 else 1 - 0.2 * (z * 16 // top % 2) * (kind == 1) + 0 * x
        image[seen] = (colour * light * shade[..., None])[seen]
        if kind in (0, 3, 4):  # windows or doors
            panes = seen & (x % (period * s / 2) < 0.3 * period * s) & (z < 0.75 * top) & (z > 0.3 * top * (kind != 3))
            image[panes] = (np.array([70, 84, 104]) * (0.7 + 0.7 * column[..., None]))[panes]
    image += rng.normal(0, 5, (220, 300, 1)) + rng.normal(0, 2, image.shape)
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).resize((600, 440), Image.Resampling.BICUBIC)
    return picture, 2 * (view.project(np.zeros(3))[0] * zoom + centre)


def occlude(draw: ImageDraw.ImageDraw, width: int, height: int, rng: np.random.Generator) -> None:
    """Something stands between the camera and the subject: a pole, a bush or the corner of a vehicle."""
    kind, right, w = rng.integers(3), rng.integers(2), rng.uniform(0.15, 0.35) * width
    if kind == 0:
        x = rng.uniform(0.1, 0.9) * width
        for i, grey in enumerate((70, 105, 140, 100)):
            draw.rectangle([x + i * w / 20, 0, x + (i + 1) * w / 20, height], fill=(grey, grey, grey + 6))
    elif kind == 1:
        for x, y, r, g in rng.random((40, 4)) * 2 - 1:
            x, y, r = width * right + x * w, height - abs(y) * w * 1.2, w * (0.2 + 0.1 * r)
            draw.ellipse([x - r, y - r, x + r, y + r], fill=(50 + int(20 * g), 96 + int(36 * g), 42))
    else:
        paint = list(COLOURS.values())[rng.integers(len(COLOURS))]
        for k in (1.0, 0.93):
            across = [abs(width * right - x * k) for x in (0, 0.8 * w, w, 0)]
            shape = list(zip(across, (height - w * k, height - 0.9 * w * k, height, height)))
            draw.polygon(shape, fill=tuple(int(c * (k * 3 - 2.2)) for c in paint))


def render(mesh: Mesh, camera: Camera, size: tuple[int, int], rng: np.random.Generator, *,
           distance: float, yaw: float, tight: tuple[float, float], shift: tuple[float, float],
           occlusion: float) -> Image.Image:  # fmt: skip
    """A picture of `size` (width, height) of the subject turned by `yaw` degrees, which fills the share `tight` of it.

    shift moves the subject by shares of the picture (for bad crops); occlusion is the chance of something in front.
    """
    parts, colours = np.array(mesh.parts), np.concatenate(mesh.colours)
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    faces = np.concatenate(mesh.faces) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    view, light = View(camera, distance, faces[..., 2].max() / 2), np.array(camera.light)

    normal = np.cross(faces, np.roll(faces, -1, axis=1)).sum(axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    middle = faces.mean(axis=1)
    inside = np.stack([np.bincount(parts, middle[:, i]) for i in range(3)], axis=1) / np.bincount(parts)[:, None]
    normal *= np.where((normal * (middle - inside[parts])).sum(axis=1) < 0, -1, 1)[:, None]  # outwards
    visible = (normal * (view.eye - middle)).sum(axis=1) > 0
    lit = camera.ambient * (0.72 + 0.28 * normal[:, 2]) + camera.sun * np.maximum(normal @ light, 0)
    mirrored = 2 * normal * (normal @ light)[:, None] - light
    gloss = 60 * camera.sun * np.maximum(mirrored @ view.towards, 0) ** 6
    fills = [tuple(f) for f in np.clip(colours * lit[:, None] + gloss[:, None], 0, 255).astype(int).tolist()]

    canvas = 2 * np.array(size)  # drawn at twice the size, then averaged: antialiasing
    points, _ = view.project(faces)
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    zoom = (canvas / (high - low)).min() * rng.uniform(*tight)
    slack = np.maximum(canvas - zoom * (high - low), 0) / 2
    offset = canvas / 2 - zoom * (low + high) / 2 + slack * rng.uniform(-0.7, 0.7, 2) + canvas * shift
    street, origin = background(camera)
    corner = origin - view.project(np.zeros(3))[0] * zoom - offset + rng.uniform(-0.35, 0.35, 2) * canvas * [1, 0.1]
    corner = np.clip(corner, 0, street.size - canvas).astype(int)
    picture = street.crop((*corner, *(corner + canvas)))

    shadow = Image.new("L", size)
    draw = ImageDraw.Draw(shadow)
    flat = view.project(faces - light * (faces[..., 2:] / light[2]))[0][visible]
    for polygon in ((flat * zoom + offset) / 2).reshape(len(flat), -1).tolist():
        draw.polygon(polygon, fill=int(110 + 90 * camera.sun))
    picture.paste((18, 18, 24), mask=shadow.filter(ImageFilter.GaussianBlur(1.5)).resize(picture.size))

    depth = view.project(inside)[1] + np.array(mesh.bias)
    order = np.argsort(-depth[parts], kind="stable")
    draw, polygons = ImageDraw.Draw(picture), (points * zoom + offset).reshape(len(faces), -1).tolist()
    for i in order[visible[order]].tolist():
        draw.polygon(polygons[i], fill=fills[i])
    if rng.random() < occlusion:
        occlude(draw, *picture.size, rng)

    # The camera's response: exposure, saturation and white balance, gamma, blur, noise.
    exposure = rng.uniform(0.93, 1.07)
    picture = picture.reduce(2).convert("RGB", tuple(m * exposure for m in camera.mix))
    curve = (255 * (np.arange(256) / 255) ** camera.gamma).astype(int).tolist()
    picture = picture.point(curve * 3).filter(ImageFilter.GaussianBlur(camera.blur * rng.uniform(0.7, 1.3)))
    noise = camera.noise * rng.standard_normal((*picture.size[::-1], 3), dtype=np.float32)
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
