"""Vehicles: the traits that make an identity, the solid they give, and the words for them."""

from dataclasses import dataclass, replace

import numpy as np

from reidlib.data.scene import COLOURS, Mesh

SCALE = 1.0  # of the surroundings
AZIMUTHS = (35, 200, 280, 150, 0, 325, 90, 235)  # degrees, of the cameras in turn
VIEWS = ("front", "front left", "left", "rear left", "rear", "rear right", "right", "front right")  # every 45 degrees

# length, width, height, height of the nose and of the belt line (metres), then the cabin's four corners as shares of the
# length: foot and top of the rear window, top and foot of the windscreen.
SHAPES = {
    "sedan": (4.6, 1.80, 1.44, 0.74, 0.94, -0.36, -0.20, 0.07, 0.24),
    "suv": (4.5, 1.90, 1.82, 1.00, 1.12, -0.49, -0.44, 0.10, 0.23),
    "van": (5.1, 1.95, 2.25, 1.00, 1.15, -0.495, -0.485, 0.30, 0.43),
    "hatchback": (3.8, 1.70, 1.50, 0.78, 0.94, -0.49, -0.38, 0.06, 0.27),
    "mpv": (4.5, 1.85, 1.72, 0.82, 1.00, -0.495, -0.45, 0.17, 0.38),
    "pickup": (5.3, 1.90, 1.80, 1.00, 1.12, -0.08, -0.05, 0.12, 0.23),
    "bus": (8.0, 2.40, 2.90, 1.15, 1.20, -0.498, -0.49, 0.48, 0.495),
    "truck": (6.4, 2.20, 2.30, 1.05, 1.20, 0.22, 0.23, 0.41, 0.48),
    "estate": (4.7, 1.80, 1.48, 0.76, 0.94, -0.49, -0.42, 0.07, 0.24),
}
TYPES = tuple(SHAPES)  # VeRi-776's nine types and ten colours, in its order
PAINTS = ("yellow", "orange", "green", "gray", "red", "blue", "white", "golden", "brown", "black")
MARKINGS = ("none", "stripe", "skirt", "checks", "circle", "panel")
MARKING_COLOURS = ("white", "black", "red", "blue", "yellow", "green", "pink")
ROOFS = ("same", "white", "black", "red")
LOADS = ("none", "none", "rack", "box", "sign", "beacon", "board", "ladder")
GLASS = {"clear": (120, 150, 168), "dark": (30, 34, 42)}
RIMS = {"silver": (196, 198, 204), "black": (52, 52, 56), "golden": (206, 160, 70)}


@dataclass(frozen=True)
class Traits:
    """What lasts of a vehicle; equal traits are one identity."""

    type: str
    colour: str
    shade: int  # of the paint, -1 to 1
    length: int  # -1 to 1, as height
    height: int
    marking: str
    marking_colour: str
    roof: str
    load: str
    glass: str
    rims: str
    spare: bool  # a wheel on the rear door


def sample(rng: np.random.Generator) -> Traits:
    """A random vehicle."""
    def pick(options):
        return options[rng.integers(len(options))]

    kind, colour = pick(TYPES), pick(PAINTS)
    return Traits(
        type=kind, colour=colour, shade=pick((-1, 0, 1)), length=pick((-1, 0, 1)), height=pick((-1, 0, 1)),
        marking=pick(MARKINGS), marking_colour=pick([c for c in MARKING_COLOURS if c != colour]),
        roof=pick(("same", "same", *(r for r in ROOFS[1:] if r != colour))), load=pick(LOADS),
        glass=pick(tuple(GLASS)), rims=pick(tuple(RIMS)), spare=kind in ("suv", "van") and rng.random() < 0.4,
    )  # fmt: skip


def sibling(traits: Traits, rng: np.random.Generator) -> Traits:
    """A vehicle that differs from this one in a single small trait, one that shows from every side."""
    fields = ["marking", "roof", "load", "glass"] + ["marking_colour"] * 2 * (traits.marking != "none")
    name = fields[rng.integers(len(fields))]
    while True:
        other = getattr(sample(rng), name)
        if other not in (getattr(traits, name), traits.colour):
            return replace(traits, **{name: other})


def caption(traits: Traits, azimuth: float) -> str:
    """A sentence of up to 20 words about the vehicle, seen from an azimuth in degrees."""
    words = {"skirt": "lower half", "box": "roof box", "sign": "taxi sign", "rack": "roof rack", "beacon": "blue beacon"}
    features = []
    if traits.marking != "none":
        features.append(f"{traits.marking_colour} {words.get(traits.marking, traits.marking)}")
    if traits.roof != "same":
        features.append(f"{traits.roof} roof")
    if traits.load != "none":
        features.append(words.get(traits.load, traits.load))
    if traits.glass == "dark":
        features.append("dark windows")
    view = VIEWS[round(azimuth / 45) % 8]
    kind = {"truck": "box truck", "bus": "city bus"}.get(traits.type, traits.type)
    words = f"a {traits.colour} {kind}" if traits.colour != "orange" else f"an orange {kind}"
    if features:
        words += " with " + " ".join(features[:-1] + ["and"] * (len(features) > 1) + features[-1:])
    return f"{words} seen from the {view}"


def _ring(rear: float, front: float, half: float, z_rear: float, z_front: float, bevel: float) -> np.ndarray:
    """Outline [8, 3] of a bevelled box; sides 0, 2, 4, 6 are its front, left, rear and right."""
    y, b = half - bevel, bevel
    plan = [(front, -y), (front, y), (front - b, half), (rear + b, half),
            (rear, y), (rear, -y), (rear + b, -half), (front - b, -half)]  # fmt: skip
    return np.array([(x, y, z_rear + (z_front - z_rear) * (x - rear) / (front - rear)) for x, y in plan])


def _both(mesh: Mesh, row: np.ndarray, u0: float, u1: float, v0: float, v1: float, colour) -> None:
    """Paints the left and the right side of a row of faces alike; u runs from the front to the rear."""
    mesh.patch(row[2], u0, u1, v0, v1, colour)
    mesh.patch(row[6], 1 - u1, 1 - u0, v0, v1, colour)


def _mark(mesh: Mesh, traits: Traits, row: np.ndarray) -> None:
    """Paints the marking on a row of faces all around the vehicle."""
    colour, kind = COLOURS[traits.marking_colour], traits.marking
    for k, quad in enumerate(row):
        flank = k in (2, 6)
        if kind == "stripe":
            mesh.patch(quad, 0, 1, 0.5, 0.85, colour)
        elif kind == "checks":
            n = max(1, round(np.linalg.norm(quad[1] - quad[0]) / 0.24))
            for i in range(n):
                low = 0.25 + 0.35 * (i % 2)
                mesh.patch(quad, i / n, (i + 1) / n, low, low + 0.35, colour)
        elif kind == "panel" and k % 2 == 0:
            mesh.patch(quad, *((0.36, 0.68) if flank else (0.3, 0.7)), 0, 1, colour)
        elif kind == "circle" and k % 2 == 0:
            middle = quad.mean(axis=0)
            mesh.disc(middle, 0.55 * (quad[3, 2] - quad[0, 2]) + 0.06, "xz" if flank else "yz", colour)


def mesh(traits: Traits, rng: np.random.Generator) -> tuple[Mesh, float]:
    """The vehicle as a solid, and the distance (metres) to look at it from; `rng` is not used: vehicles keep their pose."""
    length, width, height, nose, belt, foot, top, brow, screen = SHAPES[traits.type]
    length, height = length * (1 + 0.07 * traits.length), belt + (height - belt) * (1 + 0.14 * traits.height)
    rear, front, half = -length / 2, length / 2, width / 2
    long = traits.type in ("bus", "truck")
    paint = np.array(COLOURS[traits.colour]) * (1 + 0.12 * traits.shade)
    roof = paint if traits.roof == "same" else np.array(COLOURS[traits.roof])
    glass, rim = np.array(GLASS[traits.glass]), RIMS[traits.rims]
    wheel = 0.46 if long else 0.39 if traits.type in ("suv", "pickup", "van") else 0.33
    sill, waist = wheel * 0.75, wheel * 0.75 + 0.45 * (nose - wheel * 0.75)
    solid = Mesh()

    axles = (front - 0.19 * length, rear + 0.2 * length)
    for x in axles:  # what shows of the tyres below the body
        for y in (-half + 0.02, half - 0.24):
            solid.box((x - wheel * 0.7, y, 0), (x + wheel * 0.7, y + 0.22, wheel), (24, 24, 26), 40.0)

    start = foot * length - 0.02 * length if traits.type == "truck" else rear
    skirt = COLOURS[traits.marking_colour] if traits.marking == "skirt" else paint
    rows = solid.loft([
        _ring(start + 0.03, front - 0.03, half - 0.05, sill, sill, 0.12),
        _ring(start, front, half, waist, waist, 0.2),
        _ring(start + 0.02, front - 0.06, half - 0.02, belt, nose, 0.25),
    ], np.stack([np.tile(skirt, (8, 1)), np.tile(paint, (8, 1))]), 30.0)  # fmt: skip
    lower, upper = rows
    for quad in lower[[0, 4]]:  # bumpers and number plates
        solid.patch(quad, 0, 1, 0.0, 0.45, (44, 44, 48))
        solid.patch(quad, 0.36, 0.64, 0.45, 0.8, (238, 236, 210))
    _both(solid, lower, 0, 1, 0, 0.2, (40, 40, 44))
    if traits.type != "truck":
        _mark(solid, traits, upper)
    solid.patch(upper[0], 0.27, 0.73, 0.15, 0.7, (30, 30, 34))  # grille
    for u in (0.0, 0.78):
        solid.patch(upper[0], u, u + 0.22, 0.3, 0.85, (250, 246, 214))
        solid.patch(upper[4], u, u + 0.22, 0.25, 0.9, (176, 16, 22))
    if not long:
        for u in (0.36, 0.58):  # door gaps
            for row in rows:
                _both(solid, row, u, u + 0.006, 0, 1, paint * 0.45)
    if traits.type == "pickup":
        bed = _ring(rear + 0.12, foot * length - 0.1, half - 0.14, belt + 0.01, belt + 0.01, 0.05)
        solid.add(bed[None], (46, 46, 50))

    def wheels(positions) -> None:
        for x in positions:
            for side in (-1, 1):
                for radius, colour in ((1.22, (22, 22, 24)), (1, (40, 40, 44)), (0.66, rim), (0.22, (70, 70, 74))):
                    solid.disc((x, side * (half + 0.02), wheel), radius * wheel, "xz", colour)

    if traits.type == "truck":  # a box behind the cab
        wheels(axles[:1])
        box_end, tall = foot * length - 0.12, height + 0.5
        base = _ring(rear, box_end, half, 0.85, 0.85, 0.03)
        solid.box((rear, -half * 0.7, 0.5), (box_end, half * 0.7, 0.85), (50, 50, 54), 35.0)
        cargo = roof if traits.roof != "same" else paint * 0.5 + 118
        frame = _ring(rear, box_end, half, 1.75, 1.75, 0.03)
        lid = _ring(rear, box_end, half, tall, tall, 0.03)
        skirts = np.tile(skirt if traits.marking == "skirt" else cargo, (8, 1))
        walls = solid.loft([base, frame, lid], np.stack([skirts, np.tile(cargo, (8, 1))]), 20.0)
        _mark(solid, traits, walls[0])
        solid.patch(walls[0, 4], 0.49, 0.51, 0, 1, cargo * 0.5)
        solid.patch(walls[1, 4], 0.49, 0.51, 0, 1, cargo * 0.5)
        wheels(axles[1:])
        deck = (rear + 0.2, box_end, tall)
        _mark_cab = upper
        _mark(solid, traits, _mark_cab) if traits.marking == "none" else None
    else:
        wheels(axles)
        deck = (top * length, brow * length, height)

    lean = 0.02 if traits.type in ("bus", "van", "truck") else 0.16
    nose_at = belt + (nose - belt) * 0.6
    cabin = solid.loft([
        _ring(foot * length, screen * length, half - 0.05, belt, nose_at, 0.08),
        _ring(top * length, brow * length, half - 0.05 - lean, height, height, 0.1),
    ], paint, 20.0 if traits.type != "truck" else 19.0)  # fmt: skip
    return_row = cabin[0]
    solid.patch(return_row[0], 0.03, 0.97, 0.08, 0.92, glass)
    solid.patch(return_row[4], 0.08, 0.92, 0.2, 0.88, glass)
    panes = {"bus": 6, "van": 1, "pickup": 2, "truck": 1, "suv": 3, "mpv": 3, "estate": 3}.get(traits.type, 2)
    reach = 0.33 if traits.type == "van" else 0.97
    for i in range(panes):
        _both(solid, return_row, 0.04 + reach * i / panes, 0.01 + reach * (i + 1) / panes, 0.14, 0.86, glass)
    lid = _ring(top * length, brow * length, half - 0.05 - lean, height + 0.005, height + 0.005, 0.1)
    solid.loft([lid, lid + [0, 0, 0.06]], roof, 10.0)
    for side in (-1, 1):  # mirrors
        x, y = screen * length - 0.25, side * (half + 0.08)
        solid.box((x, y - 0.09, belt), (x + 0.12, y + 0.09, belt + 0.17), paint * 0.8, 8.0)
    if traits.spare:
        solid.part(9.0)
        for radius, colour in ((0.36, (30, 30, 32)), (0.24, rim)):
            solid.disc((rear - 0.05, 0, belt), radius, "yz", colour)
    _load(solid, traits.load, *deck, half)
    return solid, 2.2 * length + 4


def _load(solid: Mesh, load: str, x0: float, x1: float, z: float, half: float) -> None:
    """Puts a load on the roof that spans [x0, x1] at height z."""
    middle, z = (x0 + x1) / 2, z + 0.06
    if load in ("rack", "ladder"):
        colour = (40, 40, 44) if load == "rack" else (224, 190, 60)
        wide, high = (half * 0.62, 0.2) if load == "rack" else (0.28, 0.3)
        for k in range(5):
            x = x0 + (x1 - x0) * k / 4
            solid.box((x - 0.04, -wide, z + high - 0.06), (x + 0.04, wide, z + high), colour, 5.0)
        for y in (-wide, wide):
            solid.box((x0, y - 0.04, z + high - 0.1), (x1, y + 0.04, z + high), colour, 4.0)
            for x in (x0 + 0.05, x1 - 0.05):
                solid.box((x - 0.05, y - 0.04, z), (x + 0.05, y + 0.04, z + high), colour, 5.0)
    elif load == "box":
        solid.loft([_ring(middle - 0.85, middle + 0.75, 0.48, z, z, 0.15),
                    _ring(middle - 0.75, middle + 0.5, 0.4, z + 0.4, z + 0.4, 0.15)], (56, 58, 66), 5.0)  # fmt: skip
    elif load == "sign":
        solid.box((middle - 0.16, -0.42, z), (middle + 0.16, 0.42, z + 0.3), (250, 214, 40), 5.0)
    elif load == "beacon":
        solid.box((middle - 0.18, -half * 0.6, z), (middle + 0.18, half * 0.6, z + 0.12), (210, 210, 214), 5.0)
        solid.box((middle - 0.16, -half * 0.55, z + 0.1), (middle + 0.16, half * 0.55, z + 0.28), (40, 90, 250), 4.0)
    elif load == "board":
        solid.loft([_ring(x0 - 0.3, x1 + 0.5, 0.32, z + h, z + h, 0.3) for h in (0.08, 0.2)], (250, 130, 150), 5.0)
