"""People: the traits that make an identity, the walking body they give, and the words for them."""

from dataclasses import dataclass, replace

import numpy as np

from reidlib.data.scene import COLOURS, Mesh

SCALE = 0.4  # of the surroundings
AZIMUTHS = (20, 195, 280, 140, 345, 85, 230, 310)  # degrees, of the cameras in turn

CLOTHES = ("white", "black", "gray", "red", "blue", "green", "yellow", "orange", "brown", "purple", "pink")
SKINS = ((246, 208, 180), (224, 172, 134), (168, 112, 76), (104, 66, 46))
HAIR = {"black": (28, 24, 24), "brown": (92, 56, 32), "blond": (226, 188, 106), "gray": (164, 164, 166),
        "red": (168, 68, 28)}  # fmt: skip
CUTS = ("short", "short", "long", "bun")
HATS = ("none", "none", "cap", "beanie")
TOPS = ("shirt", "jumper", "jacket", "coat")
PATTERNS = ("plain", "plain", "stripes", "checks", "yoke", "band")
BOTTOMS = ("trousers", "trousers", "shorts", "skirt")
BAGS = ("none", "backpack", "handbag", "satchel", "suitcase")
WIDTH = 12  # corners of the torso's rings


@dataclass(frozen=True)
class Traits:
    """What lasts of a person; equal traits are one identity."""

    gender: str
    height: int  # -1 to 1
    build: int  # -1 slender to 1 broad
    skin: int
    cut: str
    hair: str
    hat: str
    hat_colour: str
    top: str
    top_colour: str
    pattern: str
    pattern_colour: str
    bottom: str
    bottom_colour: str
    shoes: str
    bag: str
    bag_colour: str


def sample(rng: np.random.Generator) -> Traits:
    """A random person."""
    def pick(options):
        return options[rng.integers(len(options))]

    top, bottom = pick(CLOTHES), pick(CLOTHES)
    return Traits(
        gender=pick(("man", "woman")), height=pick((-1, 0, 1)), build=pick((-1, 0, 1)), skin=pick(range(len(SKINS))),
        cut=pick(CUTS), hair=pick(tuple(HAIR)), hat=pick(HATS), hat_colour=pick(CLOTHES),
        top=pick(TOPS), top_colour=top, pattern=pick(PATTERNS), pattern_colour=pick([c for c in CLOTHES if c != top]),
        bottom=pick(BOTTOMS), bottom_colour=bottom, shoes=pick(("white", "black", "red", "brown", "blue")),
        bag=pick(BAGS), bag_colour=pick(CLOTHES),
    )  # fmt: skip


def sibling(traits: Traits, rng: np.random.Generator) -> Traits:
    """A person who differs from this one in a single small trait."""
    fields = ["hair" if traits.hat == "none" else "hat_colour", "hat", "shoes", "bag", "pattern", "bottom_colour"]
    fields += ["bag_colour"] * (traits.bag != "none") + ["pattern_colour"] * (traits.pattern != "plain")
    name = fields[rng.integers(len(fields))]
    while True:
        other = getattr(sample(rng), name)
        if other not in (getattr(traits, name), traits.top_colour):
            return replace(traits, **{name: other})


def _a(colour: str) -> str:
    return f"an {colour}" if colour == "orange" else f"a {colour}"


def caption(traits: Traits, azimuth: float) -> str:
    """A sentence of up to 20 words about the person; the azimuth of the camera is left unsaid."""
    head = f"with {traits.cut} {traits.hair} hair" if traits.hat == "none" else f"in {_a(traits.hat_colour)} {traits.hat}"
    top = f"{_a(traits.top_colour)} {traits.top}"
    if traits.pattern != "plain":
        top += f" with {traits.pattern_colour} {traits.pattern}"
    bag = "" if traits.bag == "none" else f" and {_a(traits.bag_colour)} {traits.bag}"
    return f"a {traits.gender} {head} wearing {top} {traits.bottom_colour} {traits.bottom}{bag}"


def _tube(centres, radii, corners: int = 8) -> np.ndarray:
    """Level elliptic rings [n, corners, 3] round centres [n, 3]; radii [n, 2] along y and x; corner 0 is in front."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    centres, radii = np.asarray(centres, float)[:, None], np.asarray(radii, float)[:, None]
    rings = np.repeat(centres, corners, axis=1)
    rings[..., 0] += radii[..., 1] * np.cos(angle)
    rings[..., 1] += radii[..., 0] * np.sin(angle)
    return rings


def _clothe(traits: Traits, rows: int) -> np.ndarray:
    """Colours [rows, WIDTH, 3] of the upper garment from its hem to the shoulders."""
    cloth = np.tile(np.array(COLOURS[traits.top_colour], float), (rows, WIDTH, 1))
    second = COLOURS[traits.pattern_colour]
    row, column = np.indices((rows, WIDTH))
    share = row / (rows - 1)
    chosen = {
        "stripes": row % 4 >= 2,
        "checks": (row // 2 + column // 2) % 2 == 0,
        "yoke": share > 0.62,
        "band": (share > 0.38) & (share < 0.62),
    }.get(traits.pattern, np.zeros_like(row, bool))
    cloth[chosen] = second
    if traits.top in ("jacket", "coat"):  # where it is buttoned
        cloth[:, [0, WIDTH - 1]] *= [[[0.75], [0.55]]]
    if traits.bag == "backpack":  # its straps
        cloth[rows // 2 :, [2, WIDTH - 3]] = np.array(COLOURS[traits.bag_colour]) * 0.8
    if traits.bag == "satchel":  # its strap, over one shoulder
        for i in range(rows):
            column = round(3 - 6 * (i / rows)) % WIDTH
            cloth[i, [column, (WIDTH // 2 - column) % WIDTH]] = np.array(COLOURS[traits.bag_colour]) * 0.7
    return cloth


def mesh(traits: Traits, rng: np.random.Generator) -> tuple[Mesh, float]:
    """The person in a random phase of walking, as a solid, and the distance (metres) to look at it from."""
    body, tall = Mesh(), 1 + 0.06 * traits.height
    wide = 1 + 0.16 * traits.build
    woman = traits.gender == "woman"
    skin, shoe = np.array(SKINS[traits.skin]), COLOURS[traits.shoes]
    bottom, cloth = np.array(COLOURS[traits.bottom_colour]), np.array(COLOURS[traits.top_colour])
    swing = rng.uniform(-1, 1) * 0.27

    def up(points) -> np.ndarray:
        return np.asarray(points, float) * [1, wide, tall]

    hip = 0.10 if woman else 0.09
    for side in (-1, 1):  # legs
        x, y = side * swing, side * hip
        lift = 0.10 * max(0.0, -x)
        knee, ankle = (x * 0.45 + 0.03, y, 0.50 + lift / 2), (x - lift, y, 0.09 + lift)
        rings = _tube(up([ankle, (ankle[0] * 0.6 + knee[0] * 0.4 - 0.02, y, 0.26 + lift), knee,
                          (x * 0.2 + 0.01, y, 0.70), (0, y * 0.95, 0.93)]),
                      np.array([(0.042, 0.045), (0.058, 0.065), (0.06, 0.066), (0.08, 0.09), (0.095, 0.11)]) * wide)  # fmt: skip
        covered = {"trousers": 0, "shorts": 2, "skirt": 4}[traits.bottom]
        colours = np.stack([np.tile(bottom if k >= covered else skin, (8, 1)) for k in range(4)])
        body.loft(rings, colours, 0.22)
        sole = _tube(up([(ankle[0] + 0.06, y, lift), (ankle[0] + 0.05, y, lift + 0.06), (ankle[0], y, lift + 0.11)]),
                     [(0.05, 0.14), (0.05, 0.13), (0.04, 0.06)])  # fmt: skip
        body.loft(sole, shoe, 0.23)
    if traits.bottom == "skirt":
        body.loft(_tube(up([(0, 0, 0.52), (0, 0, 0.75), (0, 0, 0.96)]),
                        np.array([(0.23, 0.2 + abs(swing) * 0.3), (0.2, 0.16), (0.16, 0.12)]) * wide), bottom, 0.05)  # fmt: skip

    hem = {"coat": 0.60, "jacket": 0.84}.get(traits.top, 0.90)
    heights = np.array([hem, 0.92, 1.06, 1.16, 1.30, 1.41, 1.46, 1.49])
    chest, waist, hips = (0.175, 0.13, 0.175) if woman else (0.2, 0.165, 0.165)
    halves = np.array([hips + 0.12 * (0.92 - hem), hips, waist, waist + 0.01, chest, chest, 0.13, 0.06])
    depths = np.array([0.13 + 0.12 * (0.92 - hem), 0.125, 0.11, 0.115, 0.14, 0.115, 0.08, 0.06])
    if traits.top != "shirt":
        halves[:6], depths[:6] = halves[:6] + 0.015, depths[:6] + 0.02
    rows = 16
    z = np.linspace(hem, 1.49, rows + 1)
    torso = _tube(up(np.stack([0 * z, 0 * z, z], 1)) * [1, 1, 1],
                  np.stack([np.interp(z, heights, halves), np.interp(z, heights, depths)], 1) * wide, WIDTH)  # fmt: skip
    garment = _clothe(traits, rows)
    body.loft(torso, garment, 0.0)

    for side in (-1, 1):  # arms
        reach = -side * swing * (0.3 if side < 0 and traits.bag in ("handbag", "suitcase") else 1)
        y = side * (chest + 0.045)
        rings = _tube(up([(reach + 0.06, y + side * 0.05, 0.78), (reach * 0.9 + 0.04, y + side * 0.05, 0.90),
                          (reach * 0.45 - 0.02, y + side * 0.045, 1.12), (reach * 0.2, y + side * 0.02, 1.28),
                          (0, y - side * 0.03, 1.44)]),
                      np.array([(0.028, 0.04), (0.036, 0.04), (0.046, 0.05), (0.056, 0.064), (0.056, 0.066)]) * wide)  # fmt: skip
        bare = 3 if traits.top == "shirt" else 1
        sleeve = np.array(COLOURS[traits.pattern_colour]) if traits.pattern == "yoke" and traits.top == "shirt" else cloth
        body.loft(rings, np.stack([np.tile(sleeve if k >= bare else skin, (8, 1)) for k in range(4)]), 0.0)
        if side < 0 and traits.bag in ("handbag", "suitcase"):
            colour, x, y = COLOURS[traits.bag_colour], reach + 0.05, (y + side * 0.06) * wide
            if traits.bag == "handbag":
                body.box((x - 0.17, y - 0.06, 0.44), (x + 0.17, y + 0.06, 0.68), colour, -0.05)
                body.box((x - 0.08, y - 0.01, 0.68), (x + 0.08, y + 0.01, 0.80), np.array(colour) * 0.5, 0.0)
            else:
                body.box((x - 0.32, y - 0.17, 0.05), (x - 0.1, y + 0.17, 0.58), colour, 0.0)
                body.box((x - 0.22, y - 0.08, 0.58), (x - 0.18, y + 0.08, 0.80), (60, 60, 64), 0.0)
    if traits.bag == "backpack":
        at, half = np.array(COLOURS[traits.bag_colour]), 0.17
        rings = _tube([(-0.23, 0, h * tall) for h in (0.98, 1.02, 1.2, 1.38, 1.46)],
                      [(half * 0.8, 0.09), (half, 0.13), (half, 0.13), (half * 0.95, 0.11), (half * 0.6, 0.07)], 10)  # fmt: skip
        body.loft(rings, np.stack([np.tile(at * k, (10, 1)) for k in (0.7, 1, 0.8, 1)]), -0.02)
    elif traits.bag == "satchel":
        y = (hips + 0.05) * wide
        body.box((-0.17, y, 0.80 * tall), (0.17, y + 0.1, 1.06 * tall), COLOURS[traits.bag_colour], -0.08)

    _head(body, traits, skin, tall)
    return body, 7.0


def _head(body: Mesh, traits: Traits, skin: np.ndarray, tall: float) -> None:
    """Neck, face, hair and hat."""
    hair, hat = np.array(HAIR[traits.hair]), np.array(COLOURS[traits.hat_colour])
    body.loft(_tube([(0, 0, 1.44 * tall), (0.01, 0, 1.55 * tall)], [(0.055, 0.055)] * 2), skin * 0.85, 0.0)
    angle = np.radians([-80, -55, -30, -8, 12, 32, 52, 72, 86])
    lift = 1.63 * tall + 0.135 * np.sin(angle)
    rings = _tube(np.stack([0 * angle + 0.015, 0 * angle, lift], 1),
                  np.stack([0.098 * np.cos(angle), 0.115 * np.cos(angle)], 1), WIDTH)  # fmt: skip
    facing = np.cos(np.linspace(0, 2 * np.pi, WIDTH, endpoint=False) + np.pi / WIDTH)
    row = np.arange(8)[:, None]
    colours = np.tile(skin.astype(float), (8, WIDTH, 1))
    colours[(row >= 5) | ((row >= 2) & (facing < 0.1))] = hair
    colours[3, [1, WIDTH - 2]] = (50, 40, 40)  # eyes
    if traits.hat != "none":
        colours[(row >= 4) & (facing < 2)] = hat
    body.loft(rings * [1.0, 1.0, 1.0], colours, -0.02)
    crown = 1.63 * tall
    if traits.hat == "cap":
        body.box((0.08, -0.08, crown + 0.035), (0.23, 0.08, crown + 0.055), hat * 0.8, -0.04)
    elif traits.hat == "beanie":
        body.loft(_tube([(0.01, 0, crown + h) for h in (0.02, 0.06)], [(0.112, 0.128)] * 2, WIDTH), hat * 0.75, -0.04)
        body.loft(_tube([(0.01, 0, crown + h) for h in (0.12, 0.15, 0.18)], [(0.03, 0.03), (0.045, 0.045), (0.02, 0.02)]),
                  hat * 0.75, -0.03)  # fmt: skip
    if traits.cut == "long":
        body.loft(_tube([(-0.075, 0, h * tall) for h in (1.36, 1.45, 1.60)],
                        [(0.09, 0.035), (0.105, 0.05), (0.1, 0.05)]), hair, 0.0)  # fmt: skip
    elif traits.cut == "bun":
        body.loft(_tube([(-0.12, 0, crown + h) for h in (0.02, 0.07, 0.12)], [(0.03, 0.03), (0.055, 0.055), (0.03, 0.03)]),
                  hair, 0.0)  # fmt: skip
