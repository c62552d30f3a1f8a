"""The phantom's picture: heart, chest and abdomen as a short-axis bSSFP cine shows them, slice by slice.

Brightness is relative to the blood of the left ventricle. Positions are in mm from that ventricle's axis: p points to
the back, q to the abdomen, z from the base to the apex. Every tissue is painted over those behind it with an edge as
soft as the voxel is large, which is what partial volume looks like. Brightness ratios follow medians of ACDC.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from hcm_hf.data.phantom.anatomy import ANGLES, Heart, Ring


Array = np.ndarray
RIGHT_VENTRICLE, MYOCARDIUM, LEFT_VENTRICLE = 1, 2, 3  # the mask's values

# Centre and semi-axes in mm (q counts from the diaphragm), brightness, and how patchy it is.
_ORGANS = (
    # name         p    q    z   semi_p semi_q semi_z value patchy
    ("liver",     -28,  52,  30,     58,    54,    75, 0.38, 0.10),
    ("spleen",     78,  20,  45,     24,    40,    50, 0.44, 0.12),
    ("stomach",    34,  36,  62,     34,    32,    48, 0.62, 0.45),
    ("kidney",     66,  82,  55,     27,    38,    55, 0.66, 0.30),
    ("vertebra",   96,  12,   0,     22,    26,   150, 0.34, 0.15),
    ("vena cava",  22,  24,  -5,     13,    15,    40, 0.86, 0.06),
    ("aorta",      60,  -8,   0,     12,    12,   200, 1.02, 0.06),
)  # fmt: skip
_FIELDS = {"warp_p": 80, "warp_q": 80, "patch": 20, "grain": 7, "fine": 3.5}  # noise by the size of its blobs, mm
_COHERENCE = 35.0  # mm along z over which noise changes
_LUNG_VESSELS, _LIVER_VESSELS = 380, 60


class Scanner(NamedTuple):
    """How one patient was imaged."""

    shape: tuple[int, int]  # pixels along x and y
    spacing: float  # mm, of a pixel
    gap: float  # mm, from slice to slice
    first: float  # z of the first slice, mm from the base
    dtype: str  # of the voxels on disk
    top: int  # the highest value on disk
    noise: float  # standard deviation, with blood at 1
    blur: float  # weight of each neighbour in the point spread


class Body(NamedTuple):
    """What surrounds the heart: thickness and position in mm, brightness with blood at 1."""

    position: tuple[float, float]  # the heart's place in the picture, as shares of its two sides
    rotation: float  # turns the whole body in the picture, rad
    septum: float  # turns the heart in the body, rad: 0 faces the chest, positive the abdomen
    drift: tuple[float, float]  # how far the heart's axis moves along p and q per mm of z
    girth: tuple[float, float]  # the body's semi-axes along p and q
    fat: float  # under the skin
    muscle: float  # of the chest wall, with the ribs
    room: float  # between the heart and the chest wall
    epicardial_fat: float  # around the heart
    trabeculae: float  # depth of the left ventricle's
    papillary: float  # radius of the papillary muscles
    coil: float  # how much brighter the skin is than the heart
    banding: float  # strength of the field's inhomogeneity
    rv_blood: float  # brightness, as are the four below
    myocardium: float
    bright_fat: float
    flesh: float
    lung: float


class Scene:
    """One patient's pictures; slices are coherent along z, and frames share their background.

    Args:
        heart: the ventricles.
        body: what surrounds them.
        scanner: the grid of pixels and the slices' distance.
        rng: the patient's random numbers; draws what is fixed in time.
    """

    def __init__(self, heart: Heart, body: Body, scanner: Scanner, rng: np.random.Generator):
        self.heart, self.body, self.shape, self.spacing = heart, body, scanner.shape, scanner.spacing
        self.thickness, shape, spacing = scanner.gap, scanner.shape, scanner.spacing
        self._origin = tuple(share * side * spacing for share, side in zip(body.position, shape, strict=True))
        self._turn = cos, sin = math.cos(body.rotation), math.sin(body.rotation)  # from the body to the picture
        x, y = (np.arange(side, dtype=np.float32) * spacing - at for side, at in zip(shape, self._origin, strict=True))
        self._p, self._q = cos * x[:, None] + sin * y, cos * y - sin * x[:, None]
        self._noise = {
            name: [_smooth_noise(shape, size / spacing, rng) for _ in range(2)] for name, size in _FIELDS.items()
        }
        self._phases = rng.uniform(-math.pi, math.pi, 4).tolist()
        self._ripples = [_periodic_noise(16, rng) for _ in range(2)]
        self._slips = rng.normal(0, 8, (len(_ORGANS), 3)).tolist()
        self._strands = rng.uniform(size=(26, 4)).tolist()
        self._vessels = _sample_vessels(rng)

    def background(self, z: float) -> tuple[Array, Array]:
        """Everything but the heart: brightness, and the gain of the coil, both (X, Y)."""
        heart, body = self.heart, self.body
        p, q = self._p + 5 * self._field("warp_p", z), self._q + 5 * self._field("warp_q", z)
        ring = heart.ring(min(max(z, 0.1 * heart.length), 0.9 * heart.length), 0)
        outline = np.maximum(ring.epi, ring.rv)
        outline_p, outline_q = -outline * np.cos(ANGLES + body.septum), outline * np.sin(ANGLES + body.septum)
        semi_p, semi_q = body.girth
        middle = 70 + 25 * z / heart.length  # of the body along q: the heart lies to the left
        drop = semi_p * (1 - np.sqrt(np.clip(1 - ((outline_q - middle) / semi_q) ** 2, 0, 1)))
        front = float(np.max(drop - outline_p)) + body.room + body.fat + body.muscle  # from the axis to the skin
        side = float(np.max(outline_q)) + 4  # from the axis to the diaphragm
        skin = _ellipse_depth(p + front - semi_p, q - middle, semi_p, semi_q)
        image, chest = self._chest(p, q, z, skin)
        self._add_abdomen(image, p, q, z, chest, side)
        return image, self._gain(z, skin, front)

    def _chest(self, p: Array, q: Array, z: float, skin: Array) -> tuple[Array, Array]:
        """The chest's wall and lungs, and the depth in mm below the wall's inner side."""
        body = self.body
        patch, grain, fine = (self._field(name, z) for name in ("patch", "grain", "fine"))
        fat = body.fat * (1 + 0.35 * self._field("warp_q", z + 40)) + 6 * np.clip(q / 100, -0.5, 1)
        muscle = skin - np.clip(fat, 3, None)
        chest = muscle - body.muscle - np.clip(p / 6, 0, 20)  # thicker at the back
        image = _cover(skin, self.spacing) * (body.bright_fat * (1 + 0.05 * grain))
        self._over(image, muscle, body.flesh * (1 + 0.25 * grain))
        self._over(image, 1.2 - np.abs(muscle - 0.42 * body.muscle + 1.5 * grain), 0.55 * body.bright_fat)
        along = np.arctan2(q / body.girth[1], -p / body.girth[0]) * (4.6 * math.pi) + 0.05 * z + 0.8 * patch
        rib = np.cos(along) * (0.3 * body.muscle) - np.abs(muscle - 0.66 * body.muscle)
        self._over(image, rib + 1.2, 0.4 * body.flesh)
        self._over(image, rib - 0.8, 0.4 * (1 + 0.3 * grain))
        self._over(image, chest, body.lung * (1 + 0.25 * fine + 0.15 * patch))
        self._add_vessels(image, self._vessels[:_LUNG_VESSELS], z, chest)
        return image, chest

    def _add_abdomen(self, image: Array, p: Array, q: Array, z: float, chest: Array, side: float) -> None:
        body = self.body
        patch, bent, grain, fine = (
            self._field(*field) for field in (("patch", z), ("patch", z + 1.6 * _COHERENCE), ("grain", z), ("fine", z))
        )
        abdomen = np.minimum(chest - 1, _ellipse_depth(p - 5, q - side - 125, 135, 125))
        self._over(image, abdomen, 0.3)  # the diaphragm
        self._over(image, abdomen - 3, np.clip(0.62 * body.bright_fat + 0.28 * patch + 0.12 * grain, 0.1, None))
        for (_, *numbers), (slip_p, slip_q, slip_z) in zip(_ORGANS, self._slips, strict=True):
            at_p, at_q, at_z, semi_p, semi_q, semi_z, value, patchy = numbers
            at_p, at_q = at_p + slip_p, at_q + slip_q + side
            scale = max(1 - ((z - at_z - slip_z) / semi_z) ** 2, 0) ** 0.5
            if scale * semi_p > 4:
                box = self._box(at_p, at_q, 1.3 * max(semi_p, semi_q) + 15)
                around_p = p[box] - at_p + 0.08 * semi_p * bent[box]
                around_q = q[box] - at_q + 0.08 * semi_p * patch[box]
                organ = _ellipse_depth(around_p, around_q, semi_p * scale, semi_q * scale)
                organ = np.minimum(organ, chest[box] - 2)
                self._over(image[box], organ + 1.5, 0.5 * body.flesh)
                self._over(image[box], organ, value * (1 + patchy * patch[box] + 0.06 * fine[box]))
        self._add_vessels(image, self._vessels[_LUNG_VESSELS:], z, abdomen)

    def _gain(self, z: float, skin: Array, front: float) -> Array:
        """The coil's shading, 1 at the heart, and the dark bands of bSSFP where the field is off."""
        body = self.body
        gain = (1 + body.coil * np.exp(-np.clip(skin, 0, None) / 24)) * np.exp(-self._p / 400)
        gain /= 1 + body.coil * math.exp(-front / 24)
        field = body.banding * ((self._p / 150) ** 2 + ((self._q - 10) / 170) ** 2) + 0.15 * self._field("warp_p", z)
        gain *= 1 - 0.75 * np.exp(-((((field % 2) - 1) / 0.16) ** 2))
        return gain

    def add_heart(self, image: Array, z: float, contraction: float, shift: Array) -> Array:
        """Paint the heart at `z` over `image` in place, moved by `shift` mm; returns the mask, uint8 (X, Y)."""
        body, ring = self.body, self.heart.ring(z, contraction)
        labels = np.zeros(self.shape, dtype=np.uint8)
        moved = (np.array(body.drift) * (z - 0.5 * self.heart.length) + shift).tolist()
        box = self._box(moved[0], moved[1], float(max(ring.epi.max(), ring.rv.max())) + 3 * body.epicardial_fat + 12)
        p, q = self._p[box] - moved[0], self._q[box] - moved[1]
        view, grain, fine = image[box], self._field("grain", z)[box], self._field("fine", z + 20 * contraction)[box]
        patch = self._field("patch", z + 15 * contraction)[box]
        radius = np.sqrt(p * p + q * q)
        angle = (np.arctan2(q, -p) - body.septum + math.pi) % (2 * math.pi)  # 0 is opposite the septum
        index = (angle * (len(ANGLES) / (2 * math.pi))).astype(np.int32) % len(ANGLES)
        edge = self.spacing + 0.35 * self.thickness * min(max(ring.level, 0), 1) ** 3  # the wall leans in at the apex

        epi, endo, rv = (table.astype(np.float32) for table in (ring.epi, ring.endo, ring.rv))
        sac = self._sac(ring).astype(np.float32)[index] - radius + 0.6 * body.epicardial_fat * patch
        _blend(view, _cover(sac + 1.5, edge), 0.16)
        _blend(view, _cover(sac, edge), 0.85 * body.bright_fat * (1 + 0.1 * grain))
        myocardium = body.myocardium * (1 + 0.07 * fine + 0.05 * grain)
        blood = 1 + 0.08 * patch + 0.07 * fine
        lobe = 17 * max(1 - max(ring.level, 0) / 0.2, 0) ** 0.5  # of the outflow tract, beside the base
        if lobe > 6:
            self._add_lobe(view, p, q, 1.15 * float(epi[0]) + 4, lobe, blood)

        in_epi, in_endo, in_rv = epi[index] - radius, endo[index] - radius, rv[index] - radius
        if rv.any():
            has_rv = rv[index] > epi[index]
            _blend(view, _cover(in_rv + 3, self.spacing) * has_rv, 0.8 * body.myocardium)
            _blend(view, _cover(in_rv, edge) * has_rv, body.rv_blood * blood)
            self._add_strands(view, ring, p, q, in_rv)
        if ring.level < 0:  # the atrium: a thin wall, and nothing to segment
            _blend(view, _cover(in_epi, edge), 0.8 * myocardium)
            _blend(view, _cover(in_epi - 3, edge), 0.95 * blood)
            return labels
        _blend(view, _cover(in_epi + 0.9, self.spacing) * (rv[index] <= epi[index]), 0.18)
        _blend(view, _cover(in_epi, edge), myocardium)
        ridges = np.minimum(self._ridges(ring.level, z), 0.35 * endo)[index] * (1 + 0.4 * grain)
        _blend(view, _cover(in_endo - ridges, edge + 0.5 * np.abs(ridges)), blood)
        self._add_papillary(view, ring, p + 1.5 * fine, q + 1.5 * grain, myocardium, edge)

        area = labels[box]
        if ring.level > 0.1 * contraction:  # the right ventricle's base descends further
            area[in_rv > 0] = RIGHT_VENTRICLE
        area[in_epi > 0] = MYOCARDIUM
        area[in_endo > 0] = LEFT_VENTRICLE
        return labels

    def _sac(self, ring: Ring) -> Array:
        """Radius in mm of the pericardium at each of `ANGLES`: over the grooves, and over fat towards the apex."""
        outer = np.maximum(ring.epi, ring.rv)
        lean = 0.5 + 0.5 * np.cos(ANGLES - 0.7 + 0.4 * np.sin(self._phases[0]))  # more of it on the right side
        fat = self.body.epicardial_fat * (lean + 0.5 * np.sin(3 * ANGLES + self._phases[1]))
        return np.maximum(_rolling_mean(outer, 90), outer) + fat + 20 * lean * max(ring.level - 0.5, 0)

    def _add_lobe(self, view: Array, p: Array, q: Array, away: float, size: float, blood: Array) -> None:
        place = self.body.septum - 1.25
        inside = size - np.hypot(p + away * math.cos(place), q - away * math.sin(place))
        _blend(view, _cover(inside + 2.5, self.spacing), 0.25)
        _blend(view, _cover(inside, self.spacing), 0.92 * self.body.rv_blood * blood)

    def _add_strands(self, view: Array, ring: Ring, p: Array, q: Array, in_rv: Array) -> None:
        """The right ventricle's trabeculae: short dark strands off its free wall, more towards the apex."""
        for turn, place, size, level in self._strands:
            fade = 1 - abs(ring.level - 0.15 - 0.8 * level) / 0.16
            if fade > 0:
                index = int(len(ANGLES) * (0.5 + 0.32 * (turn - 0.5)))
                at = float(ring.rv[index] - (0.05 + 0.55 * place) * (ring.rv[index] - ring.epi[index]))
                along, across = _polar(p, q, float(ANGLES[index]) + self.body.septum, at)
                bent = across - 0.25 * (turn - 0.5) * along
                strand = np.exp(-((along / (2.5 + 5 * size)) ** 2) - (bent / (1.2 + 0.9 * size)) ** 2)
                _blend(view, 0.75 * fade * strand * (in_rv > 0), 0.9 * self.body.myocardium)

    def _ridges(self, level: float, z: float) -> Array:
        """Depth of the left ventricle's trabeculae at each of `ANGLES`, mm."""
        first, second = self._ripples
        rough = np.cos(z / _COHERENCE) * first + np.sin(z / _COHERENCE) * second
        return self.body.trabeculae * (0.3 + 0.5 * level) * np.clip(rough, 0, 2)

    def _add_papillary(self, view: Array, ring: Ring, p: Array, q: Array, muscle: Array, edge: float) -> None:
        """Two papillary muscles; the mask counts them as cavity, as ACDC does."""
        fade = min(max((0.36 - abs(ring.level - 0.48)) / 0.12, 0), 1)
        for middle, size, phase in ((-2.1, 0.9, self._phases[2]), (2.3, 1.1, self._phases[3])):
            direction = middle + 0.25 * math.sin(phase)
            endo = float(ring.endo[int((direction / (2 * math.pi) + 0.5) * len(ANGLES))])
            along, across = _polar(p, q, direction + self.body.septum, (0.72 + 0.1 * math.cos(phase)) * endo)
            distance = np.hypot(along / (1.4 + 0.3 * math.sin(phase)), across)
            thick = min(size * self.body.papillary, 0.4 * endo)
            _blend(view, fade * _cover(thick - distance, edge + 0.8), muscle)

    def _field(self, name: str, z: float) -> Array:
        """Noise that changes smoothly along z: a rotation between two independent fields."""
        first, second = self._noise[name]
        turn = z / _COHERENCE
        return np.float32(np.cos(turn)) * first + np.float32(np.sin(turn)) * second

    def _over(self, image: Array, depth: Array, value: Array | float) -> None:
        _blend(image, _cover(depth, self.spacing), value)

    def _add_vessels(self, image: Array, vessels: list[list[float]], z: float, inside: Array) -> None:
        for at_p, at_q, at_z, size, value in vessels:
            fade = 1 - abs(z - at_z) / 14
            if fade > 0:
                box = self._box(at_p, at_q, 2.5 * size)
                square = (self._p[box] - at_p) ** 2 + (self._q[box] - at_q) ** 2
                _blend(image[box], fade * np.exp(-square / size**2) * (inside[box] > 1), value)

    def _box(self, at_p: float, at_q: float, reach: float) -> tuple[slice, slice]:
        """The part of the picture within `reach` mm of a point."""
        cos, sin = self._turn
        x, y = cos * at_p - sin * at_q + self._origin[0], sin * at_p + cos * at_q + self._origin[1]
        first = (max(int((at - reach) / self.spacing), 0) for at in (x, y))
        last = (max(int((at + reach) / self.spacing) + 2, 0) for at in (x, y))
        rows, columns = map(slice, first, last)
        return rows, columns


def _cover(depth: Array, edge: float | Array) -> Array:
    """Share of a voxel inside a shape whose border is `depth` mm away and `edge` mm wide."""
    return np.clip(depth / edge + 0.5, 0, 1)


def _blend(image: Array, cover: Array, value: Array | float) -> None:
    image += cover * (value - image)


def _polar(p: Array, q: Array, direction: float, distance: float) -> tuple[Array, Array]:
    """Outward and sideways position in mm, seen from the point `distance` mm away in `direction`."""
    cos, sin = math.cos(direction), math.sin(direction)
    return q * sin - p * cos - distance, p * sin + q * cos


def _ellipse_depth(p: Array, q: Array, semi_p: float, semi_q: float) -> Array:
    """How far inside an ellipse a point lies, in mm, exact to first order at its border."""
    square = (p / semi_p) ** 2 + (q / semi_q) ** 2
    slope = np.sqrt((p / semi_p**2) ** 2 + (q / semi_q**2) ** 2) + 1e-6
    return (1 - square) / (2 * slope) * (2 * np.sqrt(square) / (1 + np.sqrt(square)))


def _rolling_mean(values: Array, width: int) -> Array:
    """Mean over `width` neighbours of a periodic table."""
    total = np.cumsum(np.pad(values, width, mode="wrap"))
    start = width // 2
    return (total[start + width : start + width + len(values)] - total[start : start + len(values)]) / width


def _smooth_noise(shape: tuple[int, int], size: float, rng: np.random.Generator) -> Array:
    """Normal noise with blobs of `size` pixels, float32."""
    coarse = rng.standard_normal([int(np.ceil(side / size)) + 2 for side in shape], dtype=np.float32)
    fine = Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(fine) * 1.25


def _periodic_noise(knots: int, rng: np.random.Generator) -> Array:
    """Normal noise at each of `ANGLES`, with about `knots` bumps round the circle."""
    spectrum = rng.standard_normal((2, knots)) / np.sqrt(knots)
    orders = np.arange(3, 3 + knots)[:, None]
    return spectrum[0] @ np.cos(orders * ANGLES) + spectrum[1] @ np.sin(orders * ANGLES)


def _sample_vessels(rng: np.random.Generator) -> list[list[float]]:
    """Position p, q, z in mm, radius in mm and brightness: the lung's, densest at the hilum, then the liver's."""
    lung, liver = _LUNG_VESSELS, _LIVER_VESSELS
    places = [rng.normal((15, -50, 50), (50, 42, 50), (lung, 3)), rng.normal((-25, 95, 40), (25, 25, 45), (liver, 3))]
    sizes = [1.2 + rng.gamma(1.5, 0.7, lung), rng.uniform(1.5, 3, liver)]
    values = [rng.uniform(0.3, 1.6, lung), rng.uniform(0.5, 0.75, liver)]
    return np.column_stack([np.concatenate(part) for part in (places, sizes, values)]).tolist()
