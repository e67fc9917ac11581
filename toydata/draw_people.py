"""People: the traits that make an identity, the walking body they give, and the words for them."""

from collections import namedtuple

import numpy as np

from toydata.scene import COLOURS, Mesh, coloured

SCALE = 0.5  # of the surroundings
AZIMUTHS = (20, 195, 280, 140, 345, 85, 230, 310)  # degrees, of the cameras in turn

CLOTHES = ("white", "black", "gray", "red", "blue", "green", "yellow", "orange", "brown", "purple", "pink")
SKINS = ((240, 200, 172), (218, 166, 128), (164, 110, 76), (104, 66, 46))
HAIR = {"black": (28, 24, 24), "brown": (92, 56, 32), "blond": (222, 184, 102), "gray": (164, 164, 166),
        "red": (168, 68, 28)}  # fmt: skip
OPTIONS = {  # what lasts of a person; an option named twice is twice as likely
    "gender": ("man", "woman"),
    "height": (-1, 0, 1),
    "build": (-1, 0, 1),
    "skin": tuple(range(len(SKINS))),
    "cut": ("short", "short", "long", "tied"),
    "hair": tuple(HAIR),
    "hat": coloured(("cap", "beanie"), CLOTHES, plain=22),
    "top": coloured(("shirt", "jumper", "jacket", "coat"), CLOTHES),
    "pattern": coloured(("stripes", "checks", "yoke", "band"), CLOTHES, plain=22),
    "bottom": coloured(("trousers", "trousers", "shorts", "skirt"), CLOTHES),
    "shoes": ("white", "black", "red", "brown", "blue"),
    "bag": coloured(("backpack", "handbag", "satchel", "suitcase"), CLOTHES, plain=11),
}
SUBTLE = ("hat", "hair", "shoes", "bag", "pattern", "bottom")  # in which siblings differ
Traits = namedtuple("Traits", OPTIONS)


def sensible(traits: Traits) -> bool:
    """Whether all traits show: no pattern or lower garment in the colour of the upper one."""
    return traits.top.split()[0] not in (traits.pattern.split()[0], traits.bottom.split()[0])


def caption(traits: Traits, azimuth: float) -> str:
    """A sentence of up to 20 words about the person; the azimuth of the camera is left unsaid."""
    head = f"with {traits.cut} {traits.hair} hair" if traits.hat == "none" else f"in a {traits.hat}"
    pattern = "" if traits.pattern == "none" else f"with {traits.pattern} "
    bag = "" if traits.bag == "none" else f" and a {traits.bag}"
    words = f"a {traits.gender} {head} wearing a {traits.top} {pattern}{traits.bottom}{bag}"
    return words.replace("a orange", "an orange")


def _tube(centres, radii, corners: int = 8) -> np.ndarray:
    """Level elliptic rings [n, corners, 3] round centres [n, 3]; radii [n, 2] along y and x; corner 0 is in front."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    rings = np.repeat(np.asarray(centres, float)[:, None], corners, axis=1)
    radii = np.asarray(radii, float)[:, None]
    rings[..., 0] += radii[..., 1] * np.cos(angle)
    rings[..., 1] += radii[..., 0] * np.sin(angle)
    return rings


def _rows(*colours) -> np.ndarray:
    """Colours [n, 8, 3] of a tube, one for each row of its faces."""
    return np.repeat(np.array(colours, float)[:, None], 8, axis=1)


def _garment(traits: Traits, rows: int, columns: int) -> np.ndarray:
    """Colours [rows, columns, 3] of the upper garment from its hem to the shoulders, with buttons and straps."""
    name, kind = traits.top.split()
    cloth = np.tile(np.array(COLOURS[name], float), (rows, columns, 1))
    second, _, pattern = traits.pattern.partition(" ")
    row, column = np.indices((rows, columns))
    share = row / (rows - 1)
    if pattern:
        cloth[{
            "stripes": row % 4 >= 2,
            "checks": (row // 2 + column // 2) % 2 == 0,
            "yoke": share > 0.62,
            "band": (share > 0.38) & (share < 0.62),
        }[pattern]] = COLOURS[second]  # fmt: skip
    if kind in ("jacket", "coat"):  # where it is buttoned
        cloth[:, [0, -1]] *= 0.78
    colour, _, bag = traits.bag.partition(" ")
    if bag == "backpack":
        cloth[rows // 2 :, [2, columns - 3]] = np.array(COLOURS[colour]) * 0.8
    elif bag == "satchel":  # its strap runs over one shoulder
        for i in range(rows):
            at = round(3 - 6 * i / rows) % columns
            cloth[i, [at, (columns // 2 - at) % columns]] = np.array(COLOURS[colour]) * 0.7
    return cloth


def mesh(traits: Traits, rng: np.random.Generator) -> tuple[Mesh, float]:
    """The person in a random phase of walking, as a solid, and the distance (metres) to look at it from."""
    body, stature = Mesh(), np.array([1, 1 + 0.16 * traits.build, 1 + 0.06 * traits.height])
    wide, tall = stature[1:]
    skin, swing = SKINS[traits.skin], rng.uniform(-0.27, 0.27)
    name, kind = traits.bottom.split()
    bottom, covered = COLOURS[name], {"trousers": 4, "shorts": 2, "skirt": 0}[kind]
    woman = traits.gender == "woman"

    def limb(centres, radii, colours, bias: float, corners: int = 8) -> None:
        body.loft(_tube(np.asarray(centres) * stature, np.asarray(radii) * wide, corners), colours, bias)

    for side in (-1, 1):  # legs; the one that swings back lifts its foot
        x, y = side * swing, side * (0.10 if woman else 0.09)
        lift = 0.10 * max(0.0, -x)
        ankle, knee = x - lift, x * 0.45 + 0.03
        limb([(ankle, y, 0.09 + lift), (ankle * 0.6 + knee * 0.4 - 0.02, y, 0.26 + lift), (knee, y, 0.50 + lift / 2),
              (x * 0.2 + 0.01, y, 0.70), (0, y * 0.95, 0.93)],
             [(0.042, 0.045), (0.058, 0.065), (0.06, 0.066), (0.08, 0.09), (0.095, 0.11)],
             _rows(*[skin] * (4 - covered), *[bottom] * covered), 0.22)  # fmt: skip
        limb([(ankle + 0.06, y, lift), (ankle + 0.05, y, lift + 0.06), (ankle, y, lift + 0.11)],
             [(0.05, 0.14), (0.05, 0.13), (0.04, 0.06)], COLOURS[traits.shoes], 0.23)  # fmt: skip
    if kind == "skirt":
        limb([(0, 0, 0.52), (0, 0, 0.75), (0, 0, 0.96)],
             [(0.23, 0.2 + abs(swing) * 0.3), (0.2, 0.16), (0.16, 0.12)], bottom, 0.05)  # fmt: skip

    name, top = traits.top.split()
    hem, padding = {"coat": 0.60, "jacket": 0.84}.get(top, 0.90), 0.0 if top == "shirt" else 0.015
    chest, waist, hips = (0.175, 0.13, 0.175) if woman else (0.2, 0.165, 0.165)
    heights, flare = (hem, 0.92, 1.06, 1.16, 1.30, 1.40, 1.45, 1.49), 0.12 * (0.92 - hem)
    halves = (hips + flare, hips, waist, waist + 0.01, chest, chest, chest * 0.8, 0.06)
    depths = (0.13 + flare, 0.125, 0.11, 0.115, 0.14, 0.115, 0.085, 0.06)
    z = np.linspace(hem, 1.49, 17)
    radii = np.stack([np.interp(z, heights, halves), np.interp(z, heights, depths)], axis=1) + padding
    limb(np.stack([0 * z, 0 * z, z], axis=1), radii, _garment(traits, 16, 12), 0.0, 12)

    colour, _, bag = traits.bag.partition(" ")
    leather, carried = np.array(COLOURS.get(colour, skin), float), bag in ("handbag", "suitcase")
    cloth = COLOURS[traits.pattern.split()[0] if traits.pattern.endswith("yoke") and top == "shirt" else name]
    for side in (-1, 1):  # arms swing against the legs, unless the hand carries something
        x, y = -side * swing * (0.3 if carried and side < 0 else 1), side * (chest + 0.045)
        bare = 3 if top == "shirt" else 1
        limb([(x + 0.06, y + side * 0.05, 0.78), (x * 0.9 + 0.04, y + side * 0.05, 0.90),
              (x * 0.45 - 0.02, y + side * 0.045, 1.12), (x * 0.2, y + side * 0.01, 1.30), (0, y - side * 0.04, 1.44)],
             [(0.028, 0.04), (0.036, 0.04), (0.046, 0.05), (0.055, 0.064), (0.038, 0.05)],
             _rows(*[skin] * bare, *[cloth] * (4 - bare)), 0.0)  # fmt: skip
        x, y = x + 0.05, (y + side * 0.11) * wide
        if bag == "handbag" and side < 0:
            body.box((x - 0.17, y - 0.06, 0.44), (x + 0.17, y + 0.06, 0.68), leather, -0.05)
            body.box((x - 0.08, y - 0.01, 0.68), (x + 0.08, y + 0.01, 0.80), leather * 0.5)
        elif bag == "suitcase" and side < 0:
            body.box((x - 0.34, y - 0.17, 0.05), (x - 0.1, y + 0.17, 0.58), leather)
            body.box((x - 0.19, y - 0.02, 0.58), (x - 0.15, y + 0.02, 0.80), 60)
    if bag == "backpack":
        limb([(-0.23, 0, z) for z in (0.98, 1.02, 1.2, 1.38, 1.46)],
             [(0.13, 0.09), (0.17, 0.13), (0.17, 0.13), (0.16, 0.11), (0.10, 0.07)],
             _rows(leather * 0.7, leather, leather * 0.8, leather), -0.02)  # fmt: skip
    elif bag == "satchel":
        y = (hips + 0.05) * wide
        body.box((-0.17, y, 0.80 * tall), (0.17, y + 0.1, 1.06 * tall), leather, -0.08)
    _head(body, traits, np.array(skin, float), 1.63 * tall)
    return body, 7.0


def _head(body: Mesh, traits: Traits, skin: np.ndarray, centre: float) -> None:
    """Neck, face, hair and hat, round a height in metres."""

    def solid(x: float, heights, radii, colour, bias: float = 0.0) -> None:
        body.loft(_tube([(x, 0, centre + z) for z in heights], radii, 12), colour, bias)

    hair = HAIR[traits.hair]
    solid(0.005, (-0.19, -0.08), [(0.055, 0.055)] * 2, skin * 0.85)
    angle = np.radians([-80, -55, -30, -8, 12, 32, 52, 72, 86])
    row, column = np.indices((8, 12))
    face = np.tile(skin, (8, 12, 1))
    face[3, [0, 1, 10, 11]] *= 0.7  # eyes
    face[(row >= 5) | (row >= 2) & (column > 2) & (column < 9)] = hair
    name, _, hat = traits.hat.partition(" ")
    if hat:
        cloth = np.array(COLOURS[name], float)
        face[row >= 4] = cloth
    solid(0.015, 0.135 * np.sin(angle), np.cos(angle)[:, None] * [0.098, 0.115], face, -0.02)
    if hat == "cap":
        body.box((0.08, -0.08, centre + 0.035), (0.23, 0.08, centre + 0.055), cloth * 0.8, -0.04)
    elif hat == "beanie":
        solid(0.01, (0.02, 0.06), [(0.112, 0.128)] * 2, cloth * 0.75, -0.04)
        solid(0.01, (0.12, 0.15, 0.18), [(0.03, 0.03), (0.045, 0.045), (0.02, 0.02)], cloth * 0.75, -0.03)
    if traits.cut == "long":
        solid(-0.075, (-0.27, -0.18, -0.03), [(0.09, 0.035), (0.105, 0.05), (0.1, 0.05)], hair)
    elif traits.cut == "tied":
        solid(-0.12, (0.02, 0.07, 0.12), [(0.03, 0.03), (0.055, 0.055), (0.03, 0.03)], hair)
