"""A synthetic cohort in a layout that is read: short-axis cine of virtual patients, drawn here without a download.

Volumes, ejection fractions and wall thickness follow the definitions and the masks of Bernard et al., IEEE TMI 37(11),
2018, https://doi.org/10.1109/TMI.2018.2837502, and the 15 mm criterion for hypertrophic cardiomyopathy of the 2020
AHA/ACC guideline, https://doi.org/10.1161/CIR.0000000000000937.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.phantom.anatomy import Heart, Ripples
from hcm_hf.data.phantom.layouts import LAYOUTS, Drawn
from hcm_hf.data.phantom.scene import Body, Scanner, Scene
from hcm_hf.data.vocabulary import check_groups
from hcm_hf.utils.arguments import at_least, one_of
from hcm_hf.utils.files import replacing, require_empty
from hcm_hf.utils.process import count_cores, map_processes


PHANTOM_VERSION = 1
DESCRIPTION = f"synthetic cardiac phantom v{PHANTOM_VERSION}"  # in the header of every file; NIfTI allows 79 bytes


class Disease(NamedTuple):
    """Lowest and highest value in a group, at end diastole; volumes are per m2 of body surface."""

    lv_volume: tuple[float, float]  # mL / m2
    lv_ejection: tuple[float, float]  # percent
    wall: tuple[float, float]  # mm, away from the thickest segment
    thickest: tuple[float, float]  # mm, around the septum
    scar: tuple[float, float]  # degrees of the circumference that are thin and do not move
    slender: tuple[float, float]  # length of the left ventricle's cavity over its diameter
    rv_volume: tuple[float, float]  # mL / m2
    rv_ejection: tuple[float, float]  # percent
    flat: tuple[float, float]  # flattening of the septum, percent of the cavity's radius


DISEASES = {
    #               lv_volume   lv_ej.    wall        thickest  scar        slender     rv_volume  rv_ej.    flat
    "DCM":  Disease((115, 180), (10, 30), (6.0, 8.0), ( 7,  9), (  0,   0), (1.2, 1.4), (60, 130), (15, 50), (0,  0)),
    "HCM":  Disease(( 42,  72), (68, 80), (8.0, 9.5), (17, 24), (  0,   0), (1.5, 1.8), (45,  80), (50, 70), (0,  0)),
    "MINF": Disease(( 72, 115), (20, 40), (8.0, 9.5), ( 9, 12), (100, 160), (1.3, 1.6), (50,  80), (45, 65), (0,  0)),
    "NOR":  Disease(( 58,  85), (58, 68), (7.0, 8.5), ( 8,  9), (  0,   0), (1.4, 1.6), (62,  95), (48, 63), (0,  0)),
    "RV":   Disease(( 48,  75), (53, 64), (6.5, 8.0), ( 7,  9), (  0,   0), (1.3, 1.6), (95, 145), (15, 38), (5, 20)),
}  # fmt: skip

# Image grids that occur in ACDC: shape along x and y, spacing in mm, relative frequency.
_GRIDS = (
    ((216, 256), 1.36719, 10), ((256, 216), 1.36719, 8), ((216, 256), 1.5625, 8), ((208, 256), 1.5625, 8),
    ((216, 256), 1.44531,  8), ((216, 256), 1.48438, 7), ((256, 256), 1.5625, 4), ((154, 224), 1.78571, 4),
    ((180, 224), 1.5625,   4), ((232, 256), 1.36719, 3), ((208, 256), 1.64063, 3), ((174, 208), 1.68269, 3),
    ((256, 208), 1.67969,  2), ((222, 224), 1.875,   1), ((174, 224), 1.91964, 1), ((184, 288), 1.21528, 1),
    ((276, 384), 0.83333,  1), ((428, 512), 0.70313, 1),
)  # fmt: skip


# Ranges of what lies around the heart, by the names of `Body`.
_TISSUES = {
    "muscle": (15, 25), "room": (2, 9), "epicardial_fat": (1.5, 5), "trabeculae": (2, 5), "papillary": (4, 6),
    "coil": (0.1, 0.8), "banding": (0.2, 0.7), "rv_blood": (0.62, 0.86), "myocardium": (0.28, 0.50),
    "bright_fat": (0.65, 1.0), "flesh": (0.18, 0.30), "lung": (0.06, 0.16),
}  # fmt: skip


class PhantomPatient(NamedTuple):
    """Everything that determines one patient's files: what `Info.cfg` says, the anatomy and the scanner."""

    group: str
    height: float
    weight: float
    num_frames: int
    es_frame: int
    heart: Heart
    body: Body
    scanner: Scanner
    seed: tuple[int, ...]


def write_cohort(
    output_dir: str | Path,
    num_patients_per_group: int = 20,
    seed: int = 0,
    groups: Sequence[str] = GROUPS,
    cine: bool = False,
    num_proc: int | None = None,
    layout: str = "acdc",
) -> None:
    """Write drawn patients with the ED and ES volumes and their masks, as ACDC or another collection lays them out.

    Patient k of a group depends on `seed`, the group and k only: a larger cohort contains the patients of a smaller
    one, and `num_proc` changes nothing. The folder appears whole or not at all.

    Args:
        output_dir: an empty or new folder.
        num_patients_per_group: at least 1; the training half of ACDC has 20.
        seed: seed of the cohort, at least 0.
        groups: the groups to write; patients are numbered group by group.
        cine: whether to write the whole cardiac cycle too; M&Ms' 4-D files hold ED and ES alone without it.
        num_proc: number of processes; by default the number of available cores.
        layout: acdc, mnms or mnms2. The last two number structures as M&Ms and lie obliquely, from apex to base.

    Raises:
        InputError: for an unknown group, fewer than one patient, or a folder that is not empty.
    """
    check_groups(groups, GROUPS)
    at_least("num_patients_per_group", num_patients_per_group, 1)
    one_of("layout", layout, LAYOUTS)
    require_empty(output_dir, "output_dir")
    patients = list(enumerate(product(groups, range(num_patients_per_group)), 1))
    num_proc = min(num_proc or count_cores(), len(patients))
    with replacing(output_dir) as folder:
        folder.mkdir()
        jobs = [(folder, layout, number, sample_patient(seed, *one), cine) for number, one in patients]
        written = list(map_processes(_write_patient, *zip(*jobs, strict=True), num_proc=num_proc))
        LAYOUTS[layout].finish(folder, written)


def sample_patient(seed: int, group: str, index: int) -> PhantomPatient:
    """Draw patient `index` of a group: a pure function of its arguments."""
    entropy = (seed, GROUPS.index(group), index)
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    drawn = {name: rng.uniform(*limits) for name, limits in DISEASES[group]._asdict().items()}
    height = float(np.clip(rng.normal(171, 9), 145, 195))
    weight = float(np.clip(rng.normal(25.8, 4.5), 17, 40) * (height / 100) ** 2)
    surface = np.sqrt(height * weight / 3600)  # m2, Mosteller 1987
    heart = Heart(
        lv_volume=drawn["lv_volume"] * surface,
        lv_ejection=drawn["lv_ejection"] / 100,
        rv_volume=drawn["rv_volume"] * surface,
        rv_ejection=drawn["rv_ejection"] / 100,
        wall=drawn["wall"],
        thickest=drawn["thickest"],
        thickest_angle=rng.normal(0, 0.35),
        thickest_level=rng.uniform(0.25, 0.55),
        scar=np.radians(drawn["scar"]),
        scar_angle=rng.uniform(-np.pi, np.pi),
        scar_level=rng.uniform(0.5, 0.75),
        slenderness=drawn["slender"],
        flattening=drawn["flat"] / 100,
        rv_corner=rng.uniform(0, 0.5),
        rv_skew=rng.normal(0, 0.15),
        ripples=_sample_ripples(0.04, rng),
        wall_ripples=_sample_ripples(0.09, rng),
    )
    scanner = _sample_scanner(rng)
    num_frames = int(rng.choice([25, 28, 30, 30, 30, 35]))
    es_frame = round(num_frames * rng.uniform(0.33, 0.40))
    body = _sample_body(scanner.shape, weight / (height / 100) ** 2, rng)
    return PhantomPatient(
        group, float(round(height)), float(round(weight)), num_frames, es_frame, heart, body, scanner, entropy
    )


def _sample_ripples(size: float, rng: np.random.Generator) -> Ripples:
    return tuple((k, rng.normal(0, 2 * size / k), rng.uniform(-np.pi, np.pi)) for k in (2, 3, 4, 5))


def _sample_scanner(rng: np.random.Generator) -> Scanner:
    shapes, spacings, weights = zip(*_GRIDS, strict=True)
    kind = rng.choice(len(_GRIDS), p=np.array(weights) / sum(weights))
    dtype = str(rng.choice(["float32", "int16", "uint8"], p=[0.60, 0.35, 0.05]))
    tops = {
        "float32": rng.choice([255, int(rng.integers(178, 255))], p=[0.85, 0.15]),
        "int16": np.exp(rng.uniform(np.log(400), np.log(4031))),
        "uint8": 255,
    }
    gap = float(rng.choice([10.0, 5.0, 7.0], p=[0.86, 0.12, 0.02]))
    first, noise, blur = (rng.uniform(*limits) for limits in ((-1, 11), (0.012, 0.04), (0.05, 0.17)))
    return Scanner(shapes[kind], spacings[kind], gap, first, dtype, int(tops[dtype]), noise, blur)


def _sample_body(shape: tuple[int, int], body_mass_index: float, rng: np.random.Generator) -> Body:
    upright = shape[0] > shape[1]  # in these grids ACDC has the chest at the left side of the picture
    return Body(
        position=tuple(rng.normal((0.49, 0.47) if upright else (0.44, 0.51), 0.03).tolist()),
        rotation=rng.normal(1.15 if upright else 0.0, 0.15),
        septum=rng.normal(0.38, 0.25),
        drift=tuple(rng.normal((-0.06, 0.0), 0.05).tolist()),
        girth=(rng.uniform(100, 130) + body_mass_index / 2, rng.uniform(170, 205) + body_mass_index / 2),
        fat=max(4.0, 1.3 * (body_mass_index - 17) + rng.normal(0, 3)),
        **{name: rng.uniform(*limits) for name, limits in _TISSUES.items()},
    )


def _write_patient(root: Path, layout: str, number: int, patient: PhantomPatient, cine: bool) -> dict[str, object]:
    """Write one patient; return what the layout's table says of him, with frames counted from 0 in his 4-D file."""
    scanner, frames = patient.scanner, (1, patient.es_frame)
    drawn = tuple(range(1, patient.num_frames + 1)) if cine else frames
    images, masks = _draw(patient, drawn)
    zooms = (scanner.spacing, scanner.spacing, scanner.gap)
    whole = Drawn(
        number,
        patient.group,
        patient.height,
        patient.weight,
        num_frames=patient.num_frames,
        frames=frames,
        images=images,
        masks=masks,
        drawn=drawn,
        zooms=zooms,
        description=DESCRIPTION,
    )
    LAYOUTS[layout].write(root, whole)
    places = {"ed": drawn.index(1), "es": drawn.index(patient.es_frame)}
    return {"number": number, "group": patient.group, "height": patient.height, "weight": patient.weight} | places


def _draw(patient: PhantomPatient, frames: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw images in the scanner's dtype and masks, both (X, Y, Z, frames); the first frame (ED) sets the scale."""
    scanner, heart = patient.scanner, patient.heart
    streams = [np.random.default_rng(np.random.SeedSequence((*patient.seed, frame))) for frame in (0, *frames)]
    still, *moving = streams
    scene = Scene(heart, patient.body, scanner, still)
    count = int(np.clip((0.97 * heart.length - scanner.first) // scanner.gap + 1 + (still.random() < 0.2), 6, 18))
    shifts = still.normal(0, 0.8, (count, 2))  # of one breath-hold against the next
    images = np.empty((*scanner.shape, count, len(frames)), dtype=np.float32)
    masks = np.empty(images.shape, dtype=np.uint8)
    for k in range(count):
        z = scanner.first + k * scanner.gap
        background, gain = scene.background(z)
        for place, (frame, rng) in enumerate(zip(frames, moving, strict=True)):
            image = background.copy()
            masks[..., k, place] = scene.add_heart(image, z, contraction(frame, patient), shifts[k])
            images[..., k, place] = _acquire(image * gain, scanner, rng)
    scale = scanner.top / images[..., 0].max()
    return np.clip(np.rint(images * scale), 0, scanner.top).astype(scanner.dtype), masks


def contraction(frame: int, patient: PhantomPatient) -> float:
    """Return 0 at frame 1, 1 at end systole; it falls back more slowly towards the last frame."""
    if frame <= patient.es_frame:
        return 0.5 - 0.5 * np.cos(np.pi * (frame - 1) / (patient.es_frame - 1))
    filling = (frame - patient.es_frame) / (patient.num_frames + 1 - patient.es_frame)
    return 0.5 + 0.5 * np.cos(np.pi * filling**0.7)


def _acquire(image: np.ndarray, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Apply the point spread and Rician noise."""
    weights = np.array([scanner.blur, 1 - 2 * scanner.blur, scanner.blur], dtype=np.float32)
    padded = np.pad(image, 1, mode="edge")
    padded = weights[0] * (padded[:-2] + padded[2:]) + weights[1] * padded[1:-1]
    image = weights[0] * (padded[:, :-2] + padded[:, 2:]) + weights[1] * padded[:, 1:-1]
    noise = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(scanner.noise)
    return np.hypot(image + noise[0], noise[1])
