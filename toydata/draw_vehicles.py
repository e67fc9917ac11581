"""Vehicles: the traits that make an identity, the solid they give, and the words for them."""

from collections import namedtuple

import numpy as np

from toydata.scene import COLOURS, Mesh, coloured

SCALE = 1.0  # of the surroundings
AZIMUTHS = (35, 320, 95, 155, 0, 280, 200, 235)  # degrees, of the cameras in turn
VIEWS = ("front", "front left", "left", "rear left", "rear", "rear right", "right", "front right")  # every 45 degrees

# Length, width, height, height of the nose and of the belt line (metres); as shares of the length, foot and top of the
# rear window, top and foot of the windscreen; windows on a side; radius of the wheels (metres).
SHAPES = {
    "sedan": (4.6, 1.80, 1.44, 0.74, 0.94, -0.36, -0.20, 0.07, 0.24, 2, 0.33),
    "suv": (4.5, 1.90, 1.82, 1.00, 1.12, -0.49, -0.44, 0.10, 0.23, 3, 0.40),
    "van": (5.1, 1.95, 2.25, 1.00, 1.15, -0.495, -0.485, 0.30, 0.43, 1, 0.37),
    "hatchback": (3.8, 1.70, 1.50, 0.78, 0.94, -0.49, -0.38, 0.06, 0.27, 2, 0.32),
    "mpv": (4.5, 1.85, 1.72, 0.82, 1.00, -0.495, -0.45, 0.17, 0.38, 3, 0.33),
    "pickup": (5.3, 1.90, 1.80, 1.00, 1.12, -0.08, -0.05, 0.12, 0.23, 2, 0.40),
    "bus": (8.0, 2.40, 2.90, 1.15, 1.20, -0.498, -0.49, 0.48, 0.495, 6, 0.46),
    "truck": (6.4, 2.20, 2.30, 1.05, 1.20, 0.22, 0.23, 0.41, 0.48, 1, 0.46),
    "estate": (4.7, 1.80, 1.48, 0.76, 0.94, -0.49, -0.42, 0.07, 0.24, 3, 0.33),
}
TYPES = tuple(SHAPES)  # VeRi-776's nine types and ten colours, in its order
PAINTS = ("yellow", "orange", "green", "gray", "red", "blue", "white", "golden", "brown", "black")
GLASS = {"clear": (120, 150, 168), "dark": (30, 34, 42)}
RIMS = {"silver": (196, 198, 204), "black": (52, 52, 56), "golden": (206, 160, 70)}

LOADS = {  # boxes: x and y from and to, as shares of half the roof, height from and to (metres), colour
    "rack": [(x - 0.04, x + 0.04, -0.66, 0.66, 0, 0.2, 40) for x in (-1, -0.5, 0, 0.5, 1)]
    + [(-1, 1, y - 0.04, y + 0.04, 0.1, 0.2, 40) for y in (-0.62, 0.62)],
    "ladder": [(x - 0.04, x + 0.04, -0.3, 0.3, 0, 0.3, (224, 190, 60)) for x in (-1, -0.5, 0, 0.5, 1)]
    + [(-1, 1, y - 0.04, y + 0.04, 0.2, 0.3, (224, 190, 60)) for y in (-0.3, 0.3)],
    "box": [(-0.85, 0.7, -0.5, 0.5, 0, 0.4, (56, 58, 66))],
    "sign": [(-0.15, 0.15, -0.46, 0.46, 0, 0.3, (250, 214, 40))],
    "beacon": [(-0.2, 0.2, -0.6, 0.6, 0, 0.12, 212), (-0.18, 0.18, -0.56, 0.56, 0.12, 0.28, (40, 90, 250))],
    "board": [(-1.3, 1.5, -0.34, 0.34, 0.08, 0.2, (250, 130, 150))],
}
MARKINGS = ("stripe", "skirt", "checks", "circle", "panel")
OPTIONS = {  # what lasts of a vehicle; an option named twice is twice as likely
    "type": TYPES,
    "colour": PAINTS,
    "shade": (-1, 0, 1),
    "length": (-1, 0, 1),
    "height": (-1, 0, 1),
    "marking": coloured(MARKINGS, ("white", "black", "red", "blue", "yellow", "green", "pink"), plain=8),
    "roof": ("same", "same", "white", "black", "red"),
    "load": ("none", "none", *LOADS),
    "glass": tuple(GLASS),
    "rims": tuple(RIMS),
}
SUBTLE = ("marking", "marking", "roof", "load", "glass")  # in which siblings differ: they show from every side
Traits = namedtuple("Traits", OPTIONS)


def sensible(traits: Traits) -> bool:
    """Whether all traits show: no roof or marking in the colour of the body."""
    return traits.roof != traits.colour and not traits.marking.startswith(traits.colour)


def caption(traits: Traits, azimuth: float) -> str:
    """A sentence of up to 20 words about the vehicle, seen from an azimuth in degrees."""
    said = {"box": "roof box", "sign": "taxi sign", "rack": "roof rack", "beacon": "blue beacon",
            "truck": "box truck", "bus": "city bus"}  # fmt: skip
    features = {
        traits.marking.replace("skirt", "lower half"): traits.marking != "none",
        f"{traits.roof} roof": traits.roof != "same",
        said.get(traits.load, traits.load): traits.load != "none",
        "dark windows": traits.glass == "dark",
    }
    *most, last = [words for words, there in features.items() if there] or [""]
    words = " ".join(["with"] * bool(last) + most + ["and"] * bool(most) + [last] * bool(last))
    kind = f"{'an' if traits.colour == 'orange' else 'a'} {traits.colour} {said.get(traits.type, traits.type)}"
    return f"{kind} {words} seen from the {VIEWS[round(azimuth / 45) % 8]}".replace("  ", " ")


def _ring(rear: float, front: float, half: float, z_rear: float, z_front: float, bevel: float) -> np.ndarray:
    """Outline [8, 3] of a bevelled box; sides 0, 2, 4, 6 are its front, left, rear and right."""
    y, b = half - bevel, bevel
    plan = [(front, -y), (front, y), (front - b, half), (rear + b, half),
            (rear, y), (rear, -y), (rear + b, -half), (front - b, -half)]  # fmt: skip
    return np.array([(x, y, z_rear + (z_front - z_rear) * (x - rear) / (front - rear)) for x, y in plan])


def _flanks(solid: Mesh, row: np.ndarray, u0: float, u1: float, v0: float, v1: float, colour) -> None:
    """Paints the left and the right side of a row of faces alike; u runs from the front to the rear."""
    solid.patch(row[2], u0, u1, v0, v1, colour)
    solid.patch(row[6], 1 - u1, 1 - u0, v0, v1, colour)


def _mark(solid: Mesh, marking: str, row: np.ndarray) -> None:
    """Paints the marking on a row of faces all around the vehicle."""
    name, _, kind = marking.partition(" ")
    for k, quad in enumerate(row if kind else ()):
        colour, flank = COLOURS[name], k in (2, 6)
        if kind == "stripe":
            solid.patch(quad, 0, 1, 0.35, 0.75, colour)
        elif kind == "checks":
            n = max(1, round(np.linalg.norm(quad[1] - quad[0]) / 0.26))
            for i in range(n):
                low = 0.1 + 0.4 * (i % 2)
                solid.patch(quad, i / n, (i + 1) / n, low, low + 0.4, colour)
        elif kind == "panel" and k % 2 == 0:
            solid.patch(quad, *((0.36, 0.70) if flank else (0.27, 0.73)), 0, 1, colour)
        elif kind == "circle" and k % 2 == 0:
            solid.disc(quad.mean(axis=0), 0.62 * (quad[3, 2] - quad[0, 2]) + 0.05, 1 if flank else 0, colour)


def mesh(traits: Traits, rng: np.random.Generator) -> tuple[Mesh, float]:
    """The vehicle as a solid, and the distance (metres) to look at it from; having no pose, it leaves `rng` alone."""
    length, width, height, nose, belt, foot, top, brow, screen, panes, wheel = SHAPES[traits.type]
    length, height = length * (1 + 0.07 * traits.length), belt + (height - belt) * (1 + 0.14 * traits.height)
    foot, top, brow, screen = (length * x for x in (foot, top, brow, screen))
    rear, front, half, truck = -length / 2, length / 2, width / 2, traits.type == "truck"
    paint = np.array(COLOURS[traits.colour]) * (1 + 0.12 * traits.shade)
    roof = paint if traits.roof == "same" else np.array(COLOURS[traits.roof])
    mark, _, kind = traits.marking.partition(" ")
    skirt = COLOURS[mark] if kind == "skirt" else paint
    sill = wheel * 0.75
    waist = sill + 0.42 * (nose - sill)
    axles = (front - 0.19 * length, rear + 0.2 * length)
    solid = Mesh()

    def wheels(positions) -> None:
        for x in positions:
            for y in (-half - 0.02, half + 0.02):
                for radius, colour in ((1.22, 22), (1, 42), (0.66, RIMS[traits.rims]), (0.22, 70)):
                    solid.disc((x, y, wheel), radius * wheel, 1, colour)

    def two(lower, upper) -> np.ndarray:
        return np.repeat(np.array([lower, upper])[:, None], 8, axis=1)

    for x in axles:  # what shows of the tyres below the body
        for y in (-half + 0.02, half - 0.24):
            solid.box((x - wheel * 0.7, y, 0), (x + wheel * 0.7, y + 0.22, wheel), 24, 40)

    back = foot - 0.1 if truck else rear
    lower, upper = solid.loft([
        _ring(back + 0.03, front - 0.03, half - 0.05, sill, sill, 0.12),
        _ring(back, front, half, waist, waist, 0.2),
        _ring(back + 0.02, front - 0.06, half - 0.02, belt, nose, 0.25),
    ], two(skirt, paint), 30)  # fmt: skip
    for quad in lower[[0, 4]]:  # bumpers and number plates
        solid.patch(quad, 0, 1, 0.0, 0.45, (44, 44, 48))
        solid.patch(quad, 0.36, 0.64, 0.45, 0.8, (238, 236, 210))
    _flanks(solid, lower, 0, 1, 0, 0.2, 42)
    solid.patch(upper[0], 0.3, 0.7, 0.0, 0.35, 32)  # grille
    _mark(solid, "none" if truck else traits.marking, upper)
    for u in (0.0, 0.78):
        solid.patch(upper[0], u, u + 0.22, 0.3, 0.85, (250, 246, 214))
        solid.patch(upper[4], u, u + 0.22, 0.25, 0.9, (176, 16, 22))
    for u in (0.36, 0.58) if length < 6 else ():  # door gaps
        _flanks(solid, lower, u, u + 0.006, 0.2, 1, paint * 0.45)
        _flanks(solid, upper, u, u + 0.006, 0, 1, paint * 0.45)
    if traits.type == "pickup":
        solid.add(_ring(rear + 0.12, foot - 0.1, half - 0.14, belt + 0.01, belt + 0.01, 0.05)[None], 46)
    wheels(axles[:1] if truck else axles)

    lean = 0.02 if traits.type in ("bus", "van", "truck") else 0.16
    lid = _ring(top, brow, half - 0.05 - lean, height, height, 0.1)
    rings = [_ring(foot, screen, half - 0.05, belt, belt + (nose - belt) * 0.6, 0.08), lid]
    cabin, _ = solid.loft([*rings, lid * [0.98, 0.95, 1] + [0, 0, 0.07]], two(paint, roof), 29.7 if truck else 28.5)
    glass = GLASS[traits.glass]
    solid.patch(cabin[0], 0.03, 0.97, 0.08, 0.92, glass)
    solid.patch(cabin[4], 0.08, 0.92, 0.2, 0.88, glass)
    reach = 0.33 if traits.type == "van" else 0.97
    for i in range(panes):
        _flanks(solid, cabin, 0.04 + reach * i / panes, 0.01 + reach * (i + 1) / panes, 0.14, 0.86, glass)
    for y in (-half - 0.08, half + 0.08):  # mirrors
        solid.box((screen - 0.25, y - 0.09, belt), (screen - 0.13, y + 0.09, belt + 0.17), paint * 0.8, 28)

    if truck:
        cargo = paint * 0.5 + 118 if traits.roof == "same" else roof
        height += 0.5
        solid.box((rear, -half * 0.7, 0.5), (back, half * 0.7, 0.85), 50, 35)
        rings = [_ring(rear, back - 0.05, half, z, z, 0.03) for z in (0.8, 1.75, height)]
        walls = solid.loft(rings, two(skirt if kind == "skirt" else cargo, cargo), 30)
        _mark(solid, traits.marking, walls[0])
        for row in walls:
            solid.patch(row[4], 0.49, 0.51, 0, 1, cargo * 0.5)
        wheels(axles[1:])
        top, brow = rear + 0.2, back
    middle, reach = (top + brow) / 2, (brow - top) / 2
    for x0, x1, y0, y1, z0, z1, colour in LOADS.get(traits.load, ()):
        low, high = (middle + x0 * reach, y0 * half), (middle + x1 * reach, y1 * half)
        solid.box((*low, height + 0.06 + z0), (*high, height + 0.06 + z1), colour, 5 - z1)
    return solid, 2.2 * length + 4
