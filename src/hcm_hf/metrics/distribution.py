"""How far the distribution of generated images is from that of real ones.

Features are floating-point numpy arrays of shape (N, D), one row per image. All is computed in double precision.

Every function raises `InputError` for malformed arrays, sets that differ in size, and too few rows. No value is good
by itself: compare it with what other real patients score against the same reference.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

from hcm_hf.metrics.arrays import check_features
from hcm_hf.metrics.bootstrap import Resampled
from hcm_hf.utils.errors import InputError


NEIGHBOURS = 5  # Naeem et al.: k of precision, recall, density and coverage
CLUSTERINGS = 10  # Sajjadi et al.: runs of k-means that are averaged

_CHUNK = 256  # rows at a time


class PrincipalComponents(NamedTuple):
    """A mean (D,) and orthonormal directions (D, count), that of the largest variance first."""

    mean: np.ndarray
    basis: np.ndarray

    def project(self, features: np.ndarray) -> np.ndarray:
        """Coordinates (N, count) of features (N, D), in the features' own units: nothing is whitened.

        Raises:
            InputError: where features are malformed or not of the D that was fitted.
        """
        check_features("features", features, least=1)
        if features.shape[1] != len(self.mean):
            raise InputError(f"features have {features.shape[1]} columns, but the components {len(self.mean)}.")
        return (features.astype(np.float64) - self.mean) @ self.basis


def principal_components(reference: np.ndarray, count: int) -> PrincipalComponents:
    """The first principal components of the reference, on which all sets that are compared are then projected.

    Args:
        reference: features of real images, (M, D).
        count: number of components, at most D and M - 1.

    Returns:
        Mean and basis. The signs of the directions are arbitrary; no distance of this module depends on them.
    """
    check_features("reference", reference)
    rows, columns = reference.shape
    if not 1 <= count <= columns:
        raise InputError(f"count is {count}; features with {columns} columns have 1 to {columns} components.")
    if rows <= count:
        raise InputError(f"reference has {rows} rows; at least {count + 1} are needed for {count} components.")
    reference = reference.astype(np.float64)
    mean = reference.mean(0)
    _, lengths, directions = np.linalg.svd(reference - mean, full_matrices=False)
    rank = int((lengths > np.linalg.norm(reference) * max(rows, columns) * np.finfo(np.float64).eps).sum())
    if rank < count:
        raise InputError(f"reference varies in {rank} directions only, fewer than the {count} components asked for.")
    return PrincipalComponents(mean, directions[:count].T)


def frechet_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """Squared Frechet (2-Wasserstein) distance of the two Gaussians with the sets' means and covariances.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), equation 6 of https://huggingface.co/papers/1706.08500 (Heusel et al.
    2017), with covariances over N - 1. It is biased upwards, the more so the fewer the images and the more the
    features: compare only values at equal numbers of both.

    Args:
        generated: features, (N, D), N at least D + 1.
        real: features, (M, D), M at least D + 1.

    Returns:
        0 or more, lower is closer, in squared units of the features.
    """
    generated, real = _checked_pair(generated, real)
    for name, features in (("generated", generated), ("real", real)):
        check_features(name, features, least=features.shape[1] + 1)
    means = generated.mean(0), real.mean(0)
    first, second = (  # covariance = factor.T @ factor
        np.asarray(np.linalg.qr((features - mean) / np.sqrt(len(features) - 1), mode="r"))
        for features, mean in zip((generated, real), means, strict=True)
    )
    # tr (C1 C2)^(1/2), without the root of a rounded eigenvalue, which would keep only half of its digits.
    cross = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    total = np.square(means[0] - means[1]).sum() + np.square(first).sum() + np.square(second).sum() - 2 * cross
    return max(0.0, float(total))


def kernel_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3: the kernel distance of KID.

    https://huggingface.co/papers/1801.01401 (Binkowski et al. 2018), over all pairs instead of random blocks.

    Args:
        generated: features, (N, D), N at least 2.
        real: features, (M, D), M at least 2.

    Returns:
        Lower is closer; 0 on average, so also below, for two samples of one distribution.
    """
    alone = np.zeros(len(real), int), np.zeros((1, 1), int)  # all of one patient
    return resampled_kernel_distance(generated, real, *alone)[0]


def resampled_kernel_distance(
    generated: np.ndarray, real: np.ndarray, codes: np.ndarray, draws: np.ndarray
) -> tuple[float, Resampled]:
    """The kernel distance, and the same for every resample of the reference's patients.

    A patient drawn twice counts as two who are never compared with each other: pairs of a slice with itself would make
    every resample look less diverse than the reference.

    Args:
        generated: features, (N, D), N at least 2.
        real: features, (M, D), M at least 2.
        codes: (M,), the index of each real row's patient.
        draws: (resamples, patients), indices of patients.

    Returns:
        The distance, and that of the resamples; not a number where one holds no pair of slices.
    """
    generated, real = _checked_pair(generated, real)
    patients = np.arange(draws.shape[1])
    if codes.shape != (len(real),) or not np.isin(codes, patients).all():
        raise InputError(
            f"codes must hold a patient from 0 to {len(patients) - 1} for each of the {len(real)} rows of real."
        )
    member = (codes == patients[:, None]).astype(np.float64)  # (patients, M)
    drawn = [np.bincount(draw, minlength=len(patients)) for draw in draws]
    times = np.stack([np.ones(len(patients)), *drawn, *_each_left_out(len(patients))])
    kernel = _kernel(real, real)
    np.fill_diagonal(kernel, 0)
    sizes = member.sum(1)

    def over_pairs(values: np.ndarray) -> np.ndarray:
        """Sums over the pairs of each resample of what pairs of patients hold, (patients, patients)."""
        return ((times @ values) * times).sum(1) - (np.square(times) - times) @ np.diag(values)

    with np.errstate(invalid="ignore"):
        within = over_pairs(member @ kernel @ member.T) / over_pairs(np.outer(sizes, sizes) - np.diag(sizes))
        between = times @ (member @ _kernel_means(generated, real)) / (times @ sizes)
    value, *resampled = _mean_within(generated) + within - 2 * between
    return float(value), Resampled(np.array(resampled[: len(draws)]), (np.array(resampled[len(draws) :]),))


class NeighbourScores(NamedTuple):
    """Shares in [0, 1], higher is better; density alone can exceed 1."""

    precision: float  # generated rows that lie in a ball around a real one: fidelity
    recall: float  # real rows that lie in a ball around a generated one: diversity
    density: float  # balls around real rows in which a generated one lies, over k; 1 on average for real data
    coverage: float  # balls around real rows in which a generated one lies, of all


def neighbour_scores(generated: np.ndarray, real: np.ndarray) -> NeighbourScores:
    """Precision, recall, density and coverage by balls that reach to a row's fifth nearest neighbour in its own set.

    Precision and recall: https://huggingface.co/papers/1904.06991 (Kynkaanniemi et al. 2019); density and coverage:
    https://huggingface.co/papers/2002.09797 (Naeem et al. 2020). The surface belongs to the ball, so that a set
    compared with itself has a density of 1.2.

    Args:
        generated: features, (N, D), N at least 6.
        real: features, (N, D).
    """
    around_generated, around_real = _neighbourhoods(generated, real)
    return NeighbourScores(
        precision=float(around_real.any(1).mean()),
        recall=float(around_generated.any(0).mean()),
        density=float(around_real.sum(1).mean() / NEIGHBOURS),
        coverage=float(around_real.any(0).mean()),
    )


def resampled_neighbour_scores(
    generated: np.ndarray, real: np.ndarray, codes: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`neighbour_scores` for every resample of the reference's patients.

    The balls stay as they are, for a row drawn twice would be its own neighbour: a resample says which real rows with
    their balls are there, and how often each counts.

    Args:
        generated: features, (N, D), N at least 6.
        real: features, (N, D).
        codes: (N,), the index of each real row's patient.
        draws: (resamples, patients), indices of patients.

    Returns:
        (resamples, 4), in the order of `NeighbourScores`, and (patients, 4) without each patient; not a number where
        no real row is left.
    """
    around_generated, around_real = _neighbourhoods(generated, real)
    patients = np.arange(draws.shape[1])
    member = (codes[:, None] == patients).astype(np.float64)  # (M, patients)
    drawn = [np.bincount(draw, minlength=len(patients)) for draw in draws]
    times = np.stack([*drawn, *_each_left_out(len(patients))])
    sizes, hits = times @ member.sum(0), around_real @ member  # (resamples,), (N, patients)
    covered = np.stack([around.any(0) @ member for around in (around_generated, around_real)])
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = ((hits @ times.T) > 0).mean(0)
        density = (hits.mean(0) @ times.T) / NEIGHBOURS * len(real) / sizes
        recall, coverage = covered @ times.T / sizes
    scores = np.stack([precision, recall, density, coverage], axis=1)
    scores = np.where(sizes[:, None] > 0, scores, np.nan)
    return scores[: len(draws)], scores[len(draws) :]


class PrecisionRecallCurve(NamedTuple):
    """Shares in [0, 1], (num_points,) each: precision rises along the curve, recall falls."""

    precision: np.ndarray
    recall: np.ndarray


def precision_recall_curve(
    generated: np.ndarray, real: np.ndarray, num_clusters: int = 20, num_points: int = 101, seed: int = 0
) -> PrecisionRecallCurve:
    """The trade-off between the share of generated images that are like real ones and that of real ones covered.

    https://huggingface.co/papers/1806.00035 (Sajjadi et al. 2018): k-means on the union of both sets gives histograms
    p of the real and q of the generated rows; at each slope l, precision is sum min(l p, q) and recall is precision
    / l. Slopes are tangents of evenly spread angles, and the curve is the mean over several clusterings. It does not
    depend on the order of rows; exchanging the sets exchanges precision and recall and reverses the curve.

    Args:
        generated: features, (N, D), N at least 2.
        real: features, (N, D).
        num_clusters: k of k-means, at most the number of different rows.
        num_points: slopes; where it is odd, the one in the middle is 1, where precision equals recall.
        seed: of k-means.

    Returns:
        The nearer to (1, 1) the better. A generator of only some of the modes keeps its precision and loses recall.
    """
    generated, real = _checked_pair(generated, real)
    _check_equally_many(generated, real)
    union = np.concatenate([generated, real])
    distinct = len(np.unique(union, axis=0))
    if not 1 <= num_clusters <= distinct:
        raise InputError(
            f"num_clusters is {num_clusters}, not between 1 and the {distinct} different rows of both sets."
        )
    order = np.lexsort(union.T)
    union, is_real = union[order], order >= len(generated)
    slopes = np.tan(np.arange(1, num_points + 1) / (num_points + 1) * np.pi / 2)[:, None]
    generator = np.random.default_rng(seed)
    precisions = []
    for _ in range(CLUSTERINGS):
        _, homes = kmeans2(union, num_clusters, iter=100, minit="++", seed=generator)
        p, q = (np.bincount(homes[side], minlength=num_clusters) / len(real) for side in (is_real, ~is_real))
        precisions.append(np.minimum(slopes * p, q).sum(1))
    precision = np.mean(precisions, axis=0)
    return PrecisionRecallCurve(precision.clip(max=1), (precision / slopes[:, 0]).clip(max=1))


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    base = first @ second.T / first.shape[1] + 1
    return base * base * base


def _kernel_means(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean kernel of each row of `second` with all rows of `first`, (M,)."""
    return sum(_kernel(first[rows], second).sum(0) for rows in _chunks(len(first))) / len(first)


def _mean_within(features: np.ndarray) -> float:
    """Mean kernel of all pairs of different rows."""
    with_itself = (np.square(features).mean(1) + 1) ** 3
    return (_kernel_means(features, features) - with_itself / len(features)).sum() / (len(features) - 1)


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Euclidean distances (N, M) from differences, not products: equal rows are exactly 0 apart."""
    tensors = torch.from_numpy(first), torch.from_numpy(second)
    return torch.cdist(*tensors, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def _neighbourhoods(generated: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether a real row lies in the ball around a generated one, and the reverse: (N, N), generated by real, both."""
    generated, real = _checked_pair(generated, real, least=NEIGHBOURS + 1)
    _check_equally_many(generated, real)
    between = _distances(generated, real)
    return between <= _radii(generated)[:, None], between <= _radii(real)


def _radii(features: np.ndarray) -> np.ndarray:
    """Distance of each row to its fifth nearest neighbour, (N,); the nearest of all is the row itself."""
    return np.partition(_distances(features, features), NEIGHBOURS)[:, NEIGHBOURS]


def _each_left_out(patients: int) -> np.ndarray:
    """How often each patient counts, (patients, patients): in each row, one not at all and the others once."""
    return 1 - np.eye(patients)


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, length, _CHUNK))


def _checked_pair(generated: np.ndarray, real: np.ndarray, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    for name, features in (("generated", generated), ("real", real)):
        check_features(name, features, least=least)
    if generated.shape[1] != real.shape[1]:
        raise InputError(f"generated has {generated.shape[1]} features per image, but real has {real.shape[1]}.")
    return generated.astype(np.float64), real.astype(np.float64)


def _check_equally_many(generated: np.ndarray, real: np.ndarray) -> None:
    if len(generated) != len(real):
        raise InputError(
            f"generated has {len(generated)} rows and real has {len(real)}, but precision and recall need equally "
            f"many: draw {min(len(generated), len(real))} of the larger set."
        )
