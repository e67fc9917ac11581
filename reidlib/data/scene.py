"""A tiny 3-D scene: convex parts with shaded faces, seen by a fixed camera, drawn by Pillow.

Metres; x points where the subject is heading, y to its left, z up; the subject stands at the origin. Hidden surfaces are
dealt with by back-face culling and a painter's sort of whole parts, which is exact enough for convex parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CORNERS = 16  # every face is padded to this many corners, so that one array holds them all
SUPERSAMPLING = 2  # drawn this many times larger, then averaged: antialiasing

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
    light: tuple[float, float, float]  # unit vector towards the sun
    sun: float
    ambient: float
    mix: tuple[float, ...]  # 3 x 4 matrix: saturation and white balance
    gamma: float
    blur: float  # pixels
    noise: float  # grey levels
    quality: int  # of the JPEG file
    scenery: int  # seed of the background
    scale: float  # of the surroundings: 1 suits vehicles


def camera(azimuth: float, scale: float, rng: np.random.Generator) -> Camera:
    """A random camera that looks at the subject from about that azimuth (degrees)."""
    turn, height = np.radians(rng.uniform(0, 360)), np.radians(rng.uniform(35, 65))
    saturation, sun = rng.uniform(0.75, 1.2), rng.uniform(0.25, 0.75)
    gains = rng.uniform(0.84, 1.16, 3) * rng.uniform(0.88, 1.12)
    grey = np.array([0.299, 0.587, 0.114])
    mix = gains[:, None] * (saturation * np.eye(3) + (1 - saturation) * grey)
    return Camera(
        azimuth=azimuth + rng.uniform(-10, 10),
        elevation=rng.uniform(10, 30) * scale**0.5,
        light=tuple(np.cos(height) * np.array([np.cos(turn), np.sin(turn), np.tan(height)])),
        sun=sun,
        ambient=rng.uniform(1.0, 1.15) - 0.75 * sun,
        mix=tuple(np.column_stack([mix, rng.uniform(-8, 14, 3)]).ravel()),
        gamma=rng.uniform(0.8, 1.3),
        blur=rng.uniform(0.2, 0.9),
        noise=rng.uniform(1.5, 5),
        quality=int(rng.integers(60, 92)),
        scenery=int(rng.integers(2**31)),
        scale=scale,
    )


@dataclass
class Mesh:
    """Faces in drawing order; a part is a convex group of faces that is sorted by its depth as one."""

    faces: list = field(default_factory=list)  # [n, CORNERS, 3] each
    colours: list = field(default_factory=list)  # [n, 3] each
    parts: list = field(default_factory=list)  # part of each face
    bias: list = field(default_factory=list)  # metres added to a part's depth: the larger, the earlier it is drawn

    def add(self, polygons: np.ndarray, colours) -> None:
        """Adds polygons [n, k, 3], k <= CORNERS, to the latest part, of one colour (or grey level) or of colours [n, 3]."""
        n, k = polygons.shape[:2]
        pad = np.repeat(polygons[:, -1:], CORNERS - k, axis=1)
        self.faces.append(np.concatenate([polygons, pad], axis=1))
        self.colours.append(np.broadcast_to(np.asarray(colours, float), (n, 3)))
        self.parts += [len(self.bias) - 1] * n

    def loft(self, rings, colours, bias: float = 0.0) -> np.ndarray:
        """A part stretched over rings [n, m, 3], bottom first, closed by caps; colours: one, or [n - 1, m, 3].

        Returns its side faces [n - 1, m, 4, 3], whose first edge runs along the lower ring, for `patch`.
        """
        rings = np.asarray(rings, float)
        self.bias.append(bias)
        following = np.roll(rings, -1, axis=1)
        sides = np.stack([rings[:-1], following[:-1], following[1:], rings[1:]], axis=2)
        colours = np.broadcast_to(np.asarray(colours, float), (*sides.shape[:2], 3))
        self.add(sides.reshape(-1, 4, 3), colours.reshape(-1, 3))
        self.add(rings[[0, -1]], colours[[0, -1], 0])
        return sides

    def box(self, low, high, colour, bias: float = 0.0) -> None:
        """An upright box between two corners."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        plan = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        self.loft([[(x, y, z) for x, y in plan] for z in (z0, z1)], colour, bias)

    def patch(self, quad: np.ndarray, u0: float, u1: float, v0: float, v1: float, colour) -> None:
        """Paints the rectangle [u0, u1] x [v0, v1] of a quad: u along its first edge, v along its second."""
        a, b, c, d = quad
        at = [(1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c) for u, v in
              ((u0, v0), (u1, v0), (u1, v1), (u0, v1))]  # fmt: skip
        self.add(np.array(at)[None], colour)

    def disc(self, centre, radius: float, axes: str, colour) -> None:
        """A flat disc in the plane of two axes, such as "xz" for a wheel."""
        points = np.tile(np.asarray(centre, float), (CORNERS, 1))
        angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
        points[:, "xyz".index(axes[0])] += radius * np.cos(angle)
        points[:, "xyz".index(axes[1])] += radius * np.sin(angle)
        self.add(points[None], colour)


class View:
    """Perspective projection of the world by a camera at a distance (metres) from a target height (metres)."""

    def __init__(self, camera: Camera, distance: float, height: float):
        a, e = np.radians([camera.azimuth, camera.elevation])
        self.towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        self.right = np.array([-np.sin(a), np.cos(a), 0])
        self.up = np.cross(self.towards, self.right)
        self.eye = distance * self.towards + [0, 0, height]
        self.distance = distance

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points [..., 3] -> image points [..., 2] in metres at the target's depth (v downwards), depth [...]."""
        offset = points - self.eye
        depth = -offset @ self.towards
        image = np.stack([offset @ self.right, -offset @ self.up], axis=-1)
        return image * (self.distance / np.maximum(depth, 0.1))[..., None], depth

    def clipped(self, polygon: np.ndarray) -> np.ndarray:
        """The part of a polygon [k, 3] that lies in front of the camera."""
        depth = -(polygon - self.eye) @ self.towards - 0.5
        kept = []
        for i in range(len(polygon)):
            p, q, dp, dq = polygon[i - 1], polygon[i], depth[i - 1], depth[i]
            if (dp > 0) != (dq > 0):
                kept.append(p + (q - p) * dp / (dp - dq))
            if dq > 0:
                kept.append(q)
        return np.array(kept)


@lru_cache(maxsize=64)
def background(camera: Camera) -> tuple[Image.Image, np.ndarray]:
    """The empty scene, large enough to cut (supersampled) pictures from it, and the pixel where its origin lies."""
    rng, s = np.random.default_rng(camera.scenery), camera.scale
    view, zoom = View(camera, 14 * s, 0.85), 45 / s
    width, tall = 300 * SUPERSAMPLING, 220 * SUPERSAMPLING
    centre = np.array([width / 2, tall * 0.56])
    sky = np.array([(150, 186, 222), (205, 210, 214), (120, 150, 200), (224, 208, 190)][rng.integers(4)])
    image = Image.new("RGB", (width, tall), tuple(map(int, sky)))
    draw = ImageDraw.Draw(image)

    def paint(points, colour) -> None:
        inside = view.clipped(np.asarray(points, float))
        if len(inside) > 2:
            at = view.project(inside)[0] * zoom + centre
            draw.polygon(np.clip(at, -9999, 9999).ravel().tolist(), fill=tuple(int(c) for c in np.clip(colour, 0, 255)))

    def flat(x0, x1, y0, y1, colour, z=0.0) -> None:
        paint([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], colour)

    light = 0.55 + 0.5 * camera.sun
    verge = light * np.array([(96, 138, 62), (168, 160, 148), (186, 160, 112), (110, 112, 116)][rng.integers(4)])
    road = light * np.array([(92, 92, 96), (136, 132, 128), (112, 98, 90), (70, 74, 84)][rng.integers(4)])
    edge, marks = s * rng.uniform(3, 5), rng.integers(4)
    flat(-300, 300, -300, 300, verge)
    flat(-300, 300, -edge, edge, road)
    for side in (-1, 1):
        flat(-300, 300, side * edge, side * (edge + 0.3 * s), road * 0.6 + 80)
    spacing = s * rng.uniform(3, 6)
    for k in range(-12, 13):
        if marks < 2:  # lane marks
            for y in (-1.7 * s, 1.7 * s):
                flat(k * spacing, (k + 0.5) * spacing, y, y + 0.15 * s, [(230, 230, 225), (225, 190, 60)][marks])
        elif marks == 2:  # zebra crossing or paving
            flat(k * 1.2 * s, (k + 0.5) * 1.2 * s, -edge, edge, road * 0.7 + 70)
    for side in rng.permutation([-1, 1]):
        y, top, kind = side * (edge + s * rng.uniform(1, 5)), s * rng.uniform(2, 7), rng.integers(5)
        colour = rng.uniform(0.75, 1.1) * light * np.array(
            [(170, 150, 130), (150, 84, 66), (52, 92, 44), (150, 150, 156), (196, 190, 176)][kind])  # fmt: skip
        if view.eye[1] * side > y * side:  # the camera stands behind this wall
            continue
        wall = lambda x0, x1, z0, z1, c: paint([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], c)  # noqa: E731
        wall(-200, 200, 0, top, colour)
        step = s * rng.uniform(1.2, 3)
        for k in range(-16, 16):
            if kind in (0, 3, 4):  # windows and doors
                glass = np.array([70, 84, 104]) * rng.uniform(0.7, 1.4)
                wall(k * step, (k + 0.6) * step, 0.3 * top * (kind != 3), 0.75 * top, glass)
            elif kind == 1:  # courses of bricks
                wall(-200, 200, (k + 16) * top / 32, (k + 16.2) * top / 32, colour * 0.8)
            else:  # a hedge of bushes
                x, wide = k * step, step * rng.uniform(0.3, 0.9)
                wall(x - wide, x + wide, 0, top * rng.uniform(0.6, 1.1), colour * rng.uniform(0.75, 1.25))
    grain = rng.normal(0, 5, (tall // 2, width // 2, 1)) + rng.normal(0, 2, (tall // 2, width // 2, 3))
    pixels = np.asarray(image, np.float32) + grain.repeat(2, axis=0).repeat(2, axis=1)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    return image, view.project(np.zeros(3))[0] * zoom + centre


def occlude(draw: ImageDraw.ImageDraw, width: int, height: int, rng: np.random.Generator) -> None:
    """Something stands between the camera and the subject: a pole, a bush or the corner of a vehicle."""
    kind, right = rng.integers(3), rng.random() < 0.5
    if kind == 0:
        x, w = rng.uniform(0.1, 0.9) * width, rng.uniform(0.03, 0.07) * width
        for i, grey in enumerate((70, 105, 140, 100)):
            draw.rectangle([x + i * w / 4, 0, x + (i + 1) * w / 4, height], fill=(grey, grey, grey + 6))
    elif kind == 1:
        x0, spread = width * right, rng.uniform(0.2, 0.35) * width
        for x, y, r, g in rng.random((40, 4)) * 2 - 1:
            x, y, r = x0 + x * spread, height - abs(y) * spread * 1.2, spread * (0.2 + 0.1 * r)
            draw.ellipse([x - r, y - r, x + r, y + r], fill=(50 + int(20 * g), 96 + int(36 * g), 42))
    else:
        w, h = rng.uniform(0.15, 0.35) * width, rng.uniform(0.15, 0.35) * height
        colour = np.array(list(COLOURS.values())[rng.integers(len(COLOURS))]) * 0.8
        across = (lambda x: width - x) if right else (lambda x: x)
        for scale, shade in ((1, 1), (0.93, 0.75)):
            shape = [(0, height - h * scale), (w * 0.8 * scale, height - h * scale * 0.9), (w * scale, height), (0, height)]
            draw.polygon([(across(x), y) for x, y in shape], fill=tuple(int(c * shade) for c in colour))


def render(mesh: Mesh, camera: Camera, size: tuple[int, int], rng: np.random.Generator, *, distance: float,
           yaw: float = 0.0, tight: tuple[float, float] = (0.8, 0.95), shift: tuple[float, float] = (0.0, 0.0),
           occlusion: float = 0.25) -> Image.Image:  # fmt: skip
    """A picture of `size` (width, height) of the subject turned by `yaw` degrees, which fills the share `tight` of it.

    shift moves the subject by shares of the picture (for bad crops); occlusion is the chance that something hides a bit.
    """
    faces, colours = np.concatenate(mesh.faces), np.concatenate(mesh.colours)
    parts = np.array(mesh.parts)
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    faces = faces @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    view = View(camera, distance, faces[..., 2].max() / 2)

    following = np.roll(faces, -1, axis=1)
    normal = np.cross(faces, following).sum(axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    middle = faces.mean(axis=1)
    inside = np.stack([np.bincount(parts, middle[:, i]) for i in range(3)], 1) / np.bincount(parts)[:, None]
    normal *= np.where((normal * (middle - inside[parts])).sum(1) < 0, -1, 1)[:, None]
    visible = (normal * (view.eye - middle)).sum(1) > 0
    light = np.array(camera.light)
    lit = camera.ambient * (0.72 + 0.28 * normal[:, 2]) + camera.sun * np.maximum(normal @ light, 0)
    mirror = 2 * normal * (normal @ light)[:, None] - light  # a touch of gloss where the sun is reflected
    gloss = 60 * camera.sun * np.maximum(mirror @ view.towards, 0) ** 6
    shades = np.clip(colours * lit[:, None] + gloss[:, None], 0, 255).astype(np.uint8)

    image_points, _ = view.project(faces)
    low, high = image_points.min((0, 1)), image_points.max((0, 1))
    canvas = np.array(size) * SUPERSAMPLING
    zoom = (canvas / (high - low)).min() * rng.uniform(*tight)
    slack = np.maximum(canvas - zoom * (high - low), 0) / 2
    offset = canvas / 2 - zoom * (low + high) / 2 + slack * rng.uniform(-0.7, 0.7, 2) + canvas * shift

    scene, origin = background(camera)
    feet = view.project(np.zeros(3))[0] * zoom + offset
    corner = origin - feet + rng.uniform(-0.35, 0.35, 2) * canvas * [1, 0.1]
    corner = np.clip(corner, 0, np.array(scene.size) - canvas).astype(int)
    picture = scene.crop((*corner, *(corner + canvas)))

    shadow = Image.new("L", size, 0)
    draw = ImageDraw.Draw(shadow)
    flat = faces - light * (faces[..., 2] / light[2])[..., None]
    for points in ((view.project(flat)[0] * zoom + offset) / SUPERSAMPLING).reshape(len(faces), -1)[visible].tolist():
        draw.polygon(points, fill=int(110 + 90 * camera.sun))
    shadow = shadow.filter(ImageFilter.GaussianBlur(1.5)).resize(picture.size)
    picture.paste((18, 18, 24), mask=shadow)

    depth = view.project(inside)[1] + np.array(mesh.bias)
    order = np.argsort(-depth[parts], kind="stable")
    draw = ImageDraw.Draw(picture)
    points = (image_points * zoom + offset).reshape(len(faces), -1).tolist()
    fills = [tuple(shade) for shade in shades.tolist()]
    for i in order[visible[order]].tolist():
        draw.polygon(points[i], fill=fills[i])
    if rng.random() < occlusion:
        occlude(draw, *picture.size, rng)
    return develop(picture.reduce(SUPERSAMPLING), camera, rng)


def develop(picture: Image.Image, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """The camera's response: white balance, saturation, gamma, blur, noise, and a little change of exposure."""
    picture = picture.convert("RGB", tuple(m * e for m, e in zip(camera.mix, [rng.uniform(0.93, 1.07)] * 12)))
    curve = (255 * (np.arange(256) / 255) ** camera.gamma).astype(int).tolist()
    picture = picture.point(curve * 3).filter(ImageFilter.GaussianBlur(camera.blur * rng.uniform(0.7, 1.3)))
    pixels = np.asarray(picture, np.float32)
    pixels = pixels + camera.noise * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
