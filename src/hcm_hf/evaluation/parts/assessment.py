"""The parts of a report: each compares generated images with real slices in one respect, and draws its figure.

Every part offers the same rows: the generated images, real slices in their place, and the mean image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from hcm_hf.data.acdc import PHASES
from hcm_hf.evaluation.comparison import Comparison, Rows
from hcm_hf.evaluation.encoder import Encoder
from hcm_hf.evaluation.extractors import Extractor
from hcm_hf.evaluation.figures import (
    write_closest_pairs,
    write_precision_recall,
    write_spectra,
    write_thickness_histograms,
)
from hcm_hf.evaluation.parts.masks import mask_rows
from hcm_hf.metrics.anatomy import THICK, chamber_areas, valid_topology, wall_thickness
from hcm_hf.metrics.distribution import (
    NeighbourScores,
    frechet_distance,
    log_radial_spectra,
    neighbour_scores,
    precision_recall_curve,
    principal_components,
    resampled_kernel_distance,
    resampled_neighbour_scores,
)
from hcm_hf.metrics.memorization import (
    authentic_rows,
    best_match,
    copy_threshold,
    mann_whitney_z,
    membership_auc,
    nearest_neighbours,
    pixel_rows,
)
from hcm_hf.metrics.pixel import compare_images
from hcm_hf.metrics.protocols import (
    RESAMPLES,
    ImageSet,
    bootstrap_draws,
    compare_rows,
    mean_over_pairs,
    number,
    resample,
)
from hcm_hf.models.unet import denoising_errors, untrained


COMPONENTS = 32  # of the features
SUBSETS = 20  # draws of equally many rows, over which distances that depend on the number of rows are averaged
UNBOUNDED = (-np.inf, np.inf)
BOUNDS = dict.fromkeys(
    ("copy_rate", "thick_share_ed", "thick_share_es", "valid_topology", "ed_share", "group_share"), (0, 1)
) | {"nearest_neighbour_ratio": (0, np.inf), "c_t": UNBOUNDED}

FIGURE_LABELS = {
    "generated": "generated",
    "real": "real",
    "true_masks": "true masks of the real",
    "mean_image": "mean image",
}


def similarity_rows(comparison: Comparison, figures: Path | None = None, artefact: bool = False) -> Rows:
    """SSIM, CC and MSE under every protocol.

    Args:
        comparison: what is compared.
        figures: not used.
        artefact: take images in [-1, 1] for images with a data range of 255, and leave out the mean image.
    """
    options = {"device": comparison.device}
    if artefact:
        options |= {"data_range": 255.0, "value_range": (-1.0, 1.0)}

    def similarity(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
        if artefact:
            first, second = 2 * first - 1, 2 * second - 1
        return compare_images(first, second, **options)

    heldout, training = comparison.heldout, comparison.training
    levels = dict.fromkeys(("generated", "real")) if artefact else comparison.levels
    offered = {
        "generated": ImageSet(comparison.generated, _nobody(comparison.generated), levels["generated"]),
        "real": ImageSet(heldout.images, heldout.patients, levels["real"]),
    }
    if not artefact:
        offered["mean_image"] = ImageSet(comparison.mean_image, _nobody(comparison.mean_image))
    pairs = sum(len(one.images) for one in offered.values()) * (
        len(heldout.images) + min(len(heldout.images), len(training.images))
    )
    with tqdm(desc="SSIM, CC, MSE", total=pairs, unit="pair", unit_scale=True) as bar:
        return compare_rows(
            offered,
            ImageSet(training.images, training.patients),
            ImageSet(heldout.images, heldout.patients, heldout.levels),
            similarity,
            max_shift=None if artefact else comparison.generated.shape[1] // 8,
            real_per_image=comparison.real_per_image,
            seed=comparison.seed,
            device=comparison.device,
            advance=bar.update,
        )


def appearance_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """Power spectrum and brightness, against the held-out slices."""
    codes, draws = comparison.resamples
    real = log_radial_spectra(comparison.heldout.images)
    brightness = comparison.heldout.images.mean((1, 2))
    offered = _against_heldout(comparison)
    spectra = {name: log_radial_spectra(images) for name, images in offered.items()}
    rows = {}
    for name, images in offered.items():
        counts = _counts(images, comparison)
        mean = spectra[name].mean(0)
        means = images.mean((1, 2))

        def distance(chosen: np.ndarray, mean: np.ndarray = mean) -> float:
            return float(np.abs(mean - real[chosen].mean(0)).mean())

        def outliers(chosen: np.ndarray, means: np.ndarray = means) -> float:
            low, high = np.quantile(brightness[chosen], (0.01, 0.99))
            return float(((means < low) | (means > high)).mean())

        rows[name] = {
            label: number(statistic(np.arange(len(real))), resample(statistic, codes, draws), bounds, **counts)
            for label, statistic, bounds in (
                ("spectrum_distance", distance, (0, np.inf)),
                ("brightness_outliers", outliers, (0, 1)),
            )
        }
    if figures:
        write_spectra(
            {"generated": spectra["generated"], "real held-out": real, "mean image": spectra["mean_image"]},
            comparison.pixel_spacing,
            figures / "spectra.png",
        )
    return rows


def feature_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """Distances of distributions in the features of the encoder, and of other extractors by name."""
    rows: Rows = {"generated": {}, "real": {}, "mean_image": {}}
    sights = {} if comparison.encoder is None else comparison.sights
    ours = {name: sight.features for name, sight in sights.items()}
    images = {
        "generated": comparison.generated,
        "real": comparison.heldout.images,
        "training": comparison.training.images,
        "mean_image": comparison.mean_images,
    }
    described = [(comparison.encoder, ours)] if ours else []
    described += [
        (extractor, {name: extractor(one) for name, one in images.items()}) for extractor in comparison.extractors
    ]
    for extractor, features in described:
        curves = {}
        for name, numbers, curve in _distances(comparison, extractor, features):
            rows[name] |= numbers
            curves[FIGURE_LABELS[name]] = curve
        if figures:
            write_precision_recall(curves, figures / f"precision_recall_{extractor.name}.png")
    return rows


def _distances(comparison: Comparison, extractor: Encoder | Extractor, features: dict[str, np.ndarray]):
    """Yield row, numbers and precision-recall curve for one kind of features."""
    codes, draws = comparison.resamples
    components = principal_components(features["real"], COMPONENTS)
    real = components.project(features["real"])
    scale = np.sqrt(np.square(real).mean())  # the reference's variance is 1 on average, whatever the network's units
    real = real / scale
    offered = {
        name: components.project(features[source]) / scale
        for name, source in (("generated", "generated"), ("real", "training"), ("mean_image", "mean_image"))
    }
    generator = comparison.random(7)
    size = min(len(real), *(len(one) for one in offered.values()))
    subset = np.sort(generator.permutation(len(real))[:size])  # all of the held-out slices, unless fewer are offered
    everything = np.arange(len(subset))
    subsets = {name: [generator.permutation(len(one))[:size] for _ in range(SUBSETS)] for name, one in offered.items()}
    frechet, frechet_resampled = {}, {}
    for name, one in offered.items():

        def distance(chosen: np.ndarray, index: int, one: np.ndarray = one, name: str = name) -> float:
            if len(chosen) <= COMPONENTS:  # of a resample of patients with few slices: it does not count
                return np.nan
            return frechet_distance(one[subsets[name][index % SUBSETS]], real[subset][chosen])

        frechet[name] = float(np.mean([distance(everything, index) for index in range(SUBSETS)]))
        indices = count()
        frechet_resampled[name] = resample(
            lambda chosen, distance=distance, indices=indices: distance(chosen, next(indices)), codes[subset], draws
        )
    for name, one in offered.items():
        counts = {"n_real": len(real), "n_patients": draws.shape[1], "encoder": extractor.hash}
        equal = {"protocol": "equal_n", "n_generated": size, **counts, "n_real": size}
        numbers = {
            "fd": number(frechet[name], frechet_resampled[name], (0, np.inf), **equal),
            "relative_fd": number(
                frechet[name] / frechet["real"],
                frechet_resampled[name] / frechet_resampled["real"],
                (0, np.inf),
                **equal,
            ),
            "kid": number(
                *resampled_kernel_distance(one, real, codes, draws),
                UNBOUNDED,
                protocol="all",
                n_generated=len(one),
                **counts,
            ),
        }
        scores = np.mean([neighbour_scores(one[chosen], real[subset]) for chosen in subsets[name]], axis=0)
        resampled = resampled_neighbour_scores(one[subsets[name][0]], real[subset], codes[subset], draws)
        for column, label in enumerate(NeighbourScores._fields):
            bounds = (0, np.inf) if label == "density" else (0, 1)
            numbers[label] = number(scores[column], resampled[:, column], bounds, **equal)
        curve = precision_recall_curve(one[subsets[name][0]], real[subset], seed=comparison.seed)
        yield name, {f"{label}_{extractor.name}": value for label, value in numbers.items()}, curve


def memorization_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """Whether images are nearer to the training slices than those of held-out patients are, in pixels.

    The row `real` offers each held-out patient in turn, and the others are then the held-out ones; for C_T it offers
    random halves of the patients.
    """
    seen, heldout = comparison.seen, comparison.heldout
    codes, draws = comparison.resamples
    train_rows = pixel_rows(seen.images)
    heldout_best, _ = best_match(seen.images, heldout.images)
    heldout_distance, _ = nearest_neighbours(train_rows, pixel_rows(heldout.images))
    train_draws = bootstrap_draws(seen.patients, comparison.random(8))[1]
    generator = comparison.random(9)
    slices = np.bincount(codes)
    n = int(np.sort(slices)[: len(slices) // 2].sum())  # as many as half of the patients have at least
    n = min(n, len(comparison.generated))

    def z(points: np.ndarray, others: np.ndarray) -> float:
        return mann_whitney_z(*(generator.permutation(one)[:n] for one in (points, others))) if n else np.nan

    rows: Rows = {}
    for name, images in (("generated", comparison.generated), ("mean_image", comparison.mean_images)):
        best, index = best_match(seen.images, images)
        if name == "generated" and figures:
            write_closest_pairs(images, seen.images, best, index, figures / "closest_pairs.png")
        distance = np.concatenate([nearest_neighbours(train_rows, points)[0] for points in _in_pixels(images)])
        statistics = {
            "copy_rate": lambda chosen, best=best: (best > copy_threshold(heldout_best[chosen])).mean(),
            "nearest_neighbour_ratio": lambda chosen, distance=distance: (
                np.median(distance) / np.median(heldout_distance[chosen])
            ),
            "c_t": lambda chosen, distance=distance: z(distance, heldout_distance[chosen]),
        }
        rows[name] = {
            label: number(
                np.mean([statistic(np.arange(len(codes))) for _ in range(SUBSETS if label == "c_t" else 1)]),
                resample(statistic, codes, draws),
                BOUNDS[label],
                **_counts(images, comparison) | ({"n_each": n} if label == "c_t" else {}),
            )
            for label, statistic in statistics.items()
        }
        rows[name]["authenticity"] = _authenticity(train_rows, images, seen.patients, train_draws)

    patients = np.arange(len(slices)) if len(slices) > 1 else ()  # a single one has no others to be compared with
    copied, ratios = np.full(len(codes), np.nan), np.full(len(slices), np.nan)
    for patient in patients:
        own = codes == patient
        copied[own] = heldout_best[own] > copy_threshold(heldout_best[~own])
        ratios[patient] = np.median(heldout_distance[own]) / np.median(heldout_distance[~own])
    halves = [np.isin(codes, generator.permutation(patients)[: len(slices) // 2]) for _ in range(10 * SUBSETS)]
    scores = np.array([z(heldout_distance[half], heldout_distance[~half]) for half in halves if half.any()])
    counts = _counts(heldout.images, comparison)
    rows["real"] = {
        "copy_rate": number(*mean_over_pairs(copied, codes, draws), (0, 1), **counts),
        "nearest_neighbour_ratio": number(ratios.mean(), ratios[draws].mean(1), (0, np.inf), **counts),
        "c_t": number(scores.mean() if len(scores) else np.nan, scores, UNBOUNDED, **counts, n_each=n),
        "authenticity": _authenticity(train_rows, heldout.images, seen.patients, train_draws),
    }
    return rows


def _in_pixels(images: np.ndarray) -> Iterator[np.ndarray]:
    """`pixel_rows` of some images at a time."""
    return (pixel_rows(images[start : start + 1000]) for start in range(0, len(images), 1000))


def _authenticity(train: np.ndarray, images: np.ndarray, patients: np.ndarray, draws: np.ndarray) -> dict:
    """With its interval over the training patients; null where there is only one."""
    names = np.unique(patients)
    counts = {"protocol": "train", "n_generated": len(images), "n_real": len(train), "n_patients": len(names)}
    if len(names) < 2:
        return number(np.nan, np.empty(0), (0, 1), **counts)
    draws = np.concatenate([np.arange(len(names))[None], draws])
    parts = [(authentic_rows(train, points, patients, draws), len(points)) for points in _in_pixels(images)]
    value, *resampled = np.average([share for share, _ in parts], axis=0, weights=[size for _, size in parts])
    return number(value, np.array(resampled), (0, 1), **counts)


def anatomy_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """What the encoder's segmentation measures, apart for the phases that it sees, and what real masks measure.

    Real rows resample patients, the others images. The row `training` offers the training slices of the same groups,
    `true_masks` the held-out slices that the dataset has segmentations of, with these and their phases.
    """
    heldout, sights = comparison.heldout, comparison.sights
    segmented = heldout.masks.min((1, 2)) >= 0
    patients = {"real": heldout.patients, "training": comparison.training.patients}
    patients["true_masks"] = heldout.patients[segmented]
    thickness: dict[str, dict[str, np.ndarray]] = {phase: {} for phase in PHASES}
    rows: Rows = {}
    for stream, name in enumerate(("generated", "real", "training", "true_masks", "mean_image")):
        generator = np.random.default_rng((comparison.seed, 10, stream))
        truly = name == "true_masks"
        if truly and not segmented.any():
            continue
        masks = heldout.masks[segmented] if truly else sights[name].masks
        phases = heldout.phases[segmented] if truly else sights[name].phases
        walls = wall_thickness(masks, comparison.pixel_spacing)
        areas = chamber_areas(masks, comparison.pixel_spacing)
        values = {}
        for index, phase in enumerate(PHASES):
            shown = np.where(phases == index, 1.0, np.nan)
            if name in FIGURE_LABELS:
                thickness[phase][FIGURE_LABELS[name]] = walls[phases == index]
            values |= {
                f"wall_thickness_{phase.lower()}": walls * shown,
                f"thick_share_{phase.lower()}": np.where(np.isnan(walls), np.nan, walls >= THICK) * shown,
            }
            for column, chamber in enumerate(("rv", "myocardium", "lv")):
                values[f"{chamber}_area_{phase.lower()}"] = areas[:, column] * shown
        values["valid_topology"] = valid_topology(masks).astype(float)
        values["ed_share"] = (phases == PHASES.index("ED")).astype(float)
        if not truly:
            values["group_share"] = (sights[name].log_odds(comparison.groups) > 0).astype(float)
        rows[name] = {
            label: _mean(value, patients.get(name), generator, BOUNDS.get(label, (0, np.inf)), comparison)
            for label, value in values.items()
        }
    if figures:
        for panel in thickness.values():
            del panel[FIGURE_LABELS["mean_image"]]
        write_thickness_histograms(thickness, figures / "thickness.png")
    return rows


def _mean(
    values: np.ndarray,
    patients: np.ndarray | None,
    generator: np.random.Generator,
    bounds: tuple[float, float],
    comparison: Comparison,
) -> dict:
    """Mean of the known values with its interval over patients or, for generated images, over images."""
    known = np.isfinite(values)
    counts = {
        "protocol": "segmented",
        "n_generated": int(known.sum()),
        "n_real": 0 if patients is None else int(known.sum()),
        "n_patients": 0 if patients is None else len(np.unique(patients[known])),
        "encoder": comparison.encoder.hash,
    }
    if not known.any():
        return number(np.nan, np.empty(0), bounds, **counts)
    values = values[known]
    if patients is None:
        resampled = np.array([generator.choice(values, len(values)).mean() for _ in range(RESAMPLES)])
        return number(values.mean(), resampled, bounds, **counts)
    codes, draws = bootstrap_draws(patients[known], generator)
    return number(*mean_over_pairs(values, codes, draws), bounds, **counts)


def membership_rows(comparison: Comparison, figures: Path | None) -> Rows:
    """Whether the diffusion model's denoising errors betray its training patients; the control was never trained."""
    training, heldout, model = comparison.training, comparison.heldout, comparison.model
    counts = {
        "protocol": "denoising",
        "n_generated": 0,
        "n_real": len(training.images) + len(heldout.images),
        "n_patients": len(np.unique(training.patients)) + len(np.unique(heldout.patients)),
    }
    rows: Rows = {}
    for name, unet in (("generated", model.unet), ("untrained", untrained(model.unet, comparison.seed))):
        errors = [
            denoising_errors(unet, model.scheduler, images, comparison.seed)
            for images in (training.images, heldout.images)
        ]
        found = membership_auc(*errors, training.patients, heldout.patients, seed=comparison.seed)
        rows[name] = {"membership_auc": number(*found, (0, 1), **counts)}
    return rows


def _against_heldout(comparison: Comparison) -> dict[str, np.ndarray]:
    """The rows of parts that compare sets of images with the held-out slices: real ones are the training slices."""
    return {
        "generated": comparison.generated,
        "real": comparison.training.images,
        "mean_image": comparison.mean_images,
    }


def _counts(images: np.ndarray, comparison: Comparison) -> dict:
    codes, draws = comparison.resamples
    return {"protocol": "all", "n_generated": len(images), "n_real": len(codes), "n_patients": draws.shape[1]}


def _nobody(images: np.ndarray) -> np.ndarray:
    return np.full(len(images), "")


@dataclass(frozen=True)
class Part:
    """One part of the report.

    Attributes:
        assess: `assess(comparison, figures)` gives its rows and draws into the folder `figures`.
        applies: whether a comparison has what it takes.
        missing: a sentence for the reader where it does not; empty for what only some models have.
        least: generated, held-out and training slices that it takes each.
        name_least: the number that asks for so many.
    """

    assess: Callable[[Comparison, Path | None], Rows]
    applies: Callable[[Comparison], bool] = lambda comparison: True
    missing: str = ""
    least: int = 1
    name_least: str = ""


NO_ENCODER = "needs an encoder: train one with scripts/train_encoder.py and name it with --encoder."
PARTS = {
    "similarity": Part(similarity_rows),
    "appearance": Part(appearance_rows),
    "features": Part(
        feature_rows,
        lambda comparison: comparison.encoder is not None or bool(comparison.extractors),
        missing=f"the distance of distributions {NO_ENCODER}",
        least=COMPONENTS + 1,
        name_least=f"fd of {COMPONENTS} components",
    ),
    "memorization": Part(memorization_rows),
    "anatomy": Part(
        anatomy_rows, lambda comparison: comparison.encoder is not None, missing=f"the anatomy {NO_ENCODER}"
    ),
    "masks": Part(mask_rows, lambda comparison: comparison.pairs is not None),
    "membership": Part(
        membership_rows,
        lambda comparison: (
            comparison.model is not None
            and min(len(comparison.training.identities), len(comparison.heldout.identities)) > 1
        ),
    ),
}
