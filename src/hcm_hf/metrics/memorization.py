"""Does a generator copy its training images? No single test separates copying from collapse: read them together.

C_T: https://arxiv.org/abs/2004.05675 (Meehan, Chaudhuri, Dasgupta 2020)
Authenticity: https://arxiv.org/abs/2102.08921 (Alaa, van Breugel, Saveliev, van der Schaar 2022)
Membership inference from denoising errors: https://arxiv.org/abs/2302.01316 (Duan et al. 2023)

Every number stands beside the same number with other real images in the place of the generated ones.

Images are floating-point numpy arrays of shape (N, H, W) with values in [0, 1]. Rows are floating-point arrays of
shape (N, D), compared by Euclidean distance: `pixel_rows` of images, or features, but of an encoder that has not seen
the training patients, since it draws together what it has seen. Every function raises `InputError` where an array is
empty, of another kind or shape, or holds values that are not finite or outside the range.
"""

import numpy as np

from hcm_hf.metrics.bootstrap import RESAMPLES, Resampled
from hcm_hf.metrics.pixel import cc_matrix
from hcm_hf.metrics.ranking import mann_whitney_z, precedence
from hcm_hf.utils.errors import InputError


_CHUNK = 256  # images or rows at a time
_LARGEST = np.finfo(np.float64).max


def copy_rate(generated_best: np.ndarray, heldout_best: np.ndarray) -> float:
    """Share of generated images that are more like a training image than 99 % of the held-out images are.

    Alike is a high correlation coefficient with the most alike training image, which sees shifted, blurred and noised
    copies too. The percentile has the plotting positions i / (n + 1): a new image of the same distribution exceeds it
    with probability 1 % at any n from 99; where there are fewer held-out images it is their maximum, and that
    probability is 1 / (n + 1).

    Args:
        generated_best: of each generated image, (M,), as `best_match` returns it.
        heldout_best: of images of other patients, (N,).

    Returns:
        In [0, 1], lower is better: about 1 % is expected without copying, 1 of a generator that only copies.
    """
    return float((generated_best > copy_threshold(heldout_best)).mean())


def copy_threshold(heldout_best: np.ndarray) -> float:
    """The correlation above which `copy_rate` takes an image for a copy, from the held-out images' best, (N,)."""
    return float(np.quantile(heldout_best, 0.99, method="weibull"))


def best_match(train: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation coefficient with the most alike training image, and which one that is.

    Args:
        train: images, (L, H, W).
        images: the images to look up, (N, H, W).

    Returns:
        (N,) in [-1, 1], higher is more alike, and (N,), indices into `train`.
    """
    _check(3, train=train, images=images)
    best, index = np.empty(len(images)), np.empty(len(images), int)
    for rows in _chunks(len(images)):
        likeness = cc_matrix(images[rows], train)
        best[rows], index[rows] = likeness.max(1), likeness.argmax(1)
    return best, index


def pixel_rows(images: np.ndarray) -> np.ndarray:
    """Images as rows whose Euclidean distance is sqrt(2 - 2 CC), where CC is their correlation coefficient.

    Args:
        images: floats, (N, H, W).

    Returns:
        float32, (N, H * W), each of mean 0 and length 1; zeros, at distance 1 from all others, for constant images.
    """
    _check(3, images=images)
    rows = np.empty((len(images), images[0].size), np.float32)
    for part in _chunks(len(images)):
        flat = images[part].reshape(len(images[part]), -1).astype(np.float32)
        varied = flat.max(1, keepdims=True) > flat.min(1, keepdims=True)
        flat = (flat - flat.mean(1, keepdims=True)) * varied
        rows[part] = flat / np.where(varied, np.linalg.norm(flat, axis=1, keepdims=True), 1)
    return rows


def nearest_neighbours(train: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest training row, and which one that is.

    Args:
        train: rows, (L, D).
        points: the rows to look up, (N, D).

    Returns:
        (N,), 0 or more, and (N,), indices into `train`.
    """
    _check(2, train=train, points=points)
    centre = train.mean(0, dtype=float)  # products of small numbers round less
    train = train - centre
    squares = np.square(train).sum(1)
    distance, index = np.empty(len(points)), np.empty(len(points), int)
    for rows in _chunks(len(points)):
        chunk = points[rows] - centre
        index[rows] = (squares - 2 * chunk @ train.T).argmin(1)
        distance[rows] = np.linalg.norm(chunk - train[index[rows]], axis=1)
    return distance, index


def nearest_neighbour_ratio(generated: np.ndarray, heldout: np.ndarray) -> float:
    """Median distance of generated rows to the nearest training row, over that of held-out rows.

    Args:
        generated: distances, (M,), as `nearest_neighbours` returns them.
        heldout: of rows of other patients, (N,).

    Returns:
        0 or more: about 1 is healthy, 0 copies, above 1 lies farther from the training data than real patients do;
        not a number where half of the held-out rows or more are training rows.
    """
    real = np.median(heldout)
    return float(np.median(generated) / real) if real else float("nan")


def data_copying_z(generated: np.ndarray, heldout: np.ndarray, n: int, generator: np.random.Generator) -> float:
    """C_T of Meehan et al. in one cell: are generated rows nearer to the training rows, as a Z statistic.

    It grows with sqrt(n), so compare at equal n. Slices of one patient are not independent: two groups of real
    patients differ more widely than a standard normal number does.

    Args:
        generated: distances to the nearest training row, (M,).
        heldout: of rows of other patients, (N,).
        n: at most so many of each take part, drawn at random.
        generator: of the draws.

    Returns:
        About 0 is healthy; far below 0, generated rows copy; far above, they underfit; not a number where n is 0.
    """
    return mann_whitney_z(*(generator.permutation(rows)[:n] for rows in (generated, heldout))) if n else float("nan")


def authenticity(
    train: np.ndarray, generated: np.ndarray, train_patients: np.ndarray, draws: np.ndarray
) -> tuple[float, np.ndarray]:
    """Share of generated rows that are no noisy copy of a training row, as Alaa et al. define it.

    A row is authentic if it lies farther from its nearest training row than that one lies from its own nearest
    training row, which here is one of another patient: neighbouring slices of one patient are so alike that with
    them every row would pass. (The authors' published code compares other pairs of distances; this is the paper's
    definition.)

    Args:
        train: rows, (L, D).
        generated: rows, (M, D).
        train_patients: the patient of each training row, (L,), two or more different ones.
        draws: resamples, (resamples, patients), indices of patients in the order of their names; how often a patient
            is drawn does not matter.

    Returns:
        In [0, 1]: 0 copies only; real held-out rows in the place of `generated` give the value to compare with. And
        the same for every resample, (resamples,); not a number where one holds one patient only.
    """
    _check(2, train=train, generated=generated)
    _check_patients(train, train_patients, "train")
    names, codes = np.unique(train_patients, return_inverse=True)
    near = [nearest_neighbours(train[codes == patient], generated) for patient in range(len(names))]
    distance = np.stack([found[0] for found in near], axis=1)  # (M, patients), to the patient's nearest row,
    index = np.stack([np.flatnonzero(codes == p)[found[1]] for p, found in enumerate(near)], axis=1)  # which is this
    used, position = np.unique(index, return_inverse=True)
    spacing = np.stack([nearest_neighbours(train[codes == p], train[used])[0] for p in range(len(names))], axis=1)
    spacing[np.arange(len(used)), codes[used]] = np.inf  # of another patient
    everyone = [np.arange(len(names)), *draws]
    shares, rows = np.full(len(everyone), np.nan), np.arange(len(generated))
    for i, present in enumerate(map(np.unique, everyone)):
        if len(present) > 1:
            nearest = present[distance[:, present].argmin(1)]
            gap = spacing[position.reshape(index.shape)[rows, nearest]][:, present].min(1)
            shares[i] = (distance[rows, nearest] > gap).mean()
    return float(shares[0]), shares[1:]


def membership_auc(
    train_errors: np.ndarray,
    heldout_errors: np.ndarray,
    train_patients: np.ndarray,
    heldout_patients: np.ndarray,
    seed: int = 0,
) -> tuple[float, Resampled]:
    """How well a model's denoising errors tell the patients it was trained on from others: area under the ROC curve.

    Args:
        train_errors: mean squared error of each slice, (L,), all at the same noise levels.
        heldout_errors: of slices of other patients, (N,).
        train_patients: the patient of each slice, (L,), two or more different ones.
        heldout_patients: (N,), two or more other ones.
        seed: of the resamples.

    Returns:
        The probability that a training patient's mean error is below a held-out one's: .5 tells nothing, 1 betrays
        every member; and the same for every bootstrap resample of both sets of patients.
    """
    _check(1, train_errors=train_errors, heldout_errors=heldout_errors)
    _check_patients(train_errors, train_patients, "train")
    _check_patients(heldout_errors, heldout_patients, "heldout")
    shared = np.intersect1d(train_patients, heldout_patients)
    if len(shared):
        raise InputError(f"Patient {shared[0]} is in both train_patients and heldout_patients.")
    members, others = _patient_means(train_errors, train_patients), _patient_means(heldout_errors, heldout_patients)
    below = precedence(members, others)
    generator = np.random.default_rng(seed)
    weights = [generator.multinomial(k, np.full(k, 1 / k), size=RESAMPLES) / k for k in below.shape]
    left_out = tuple((below.sum() - below.sum(1 - side)) / (below.size - below.shape[1 - side]) for side in range(2))
    return float(below.mean()), Resampled((weights[0] @ below * weights[1]).sum(1), left_out)


def _patient_means(errors: np.ndarray, patients: np.ndarray) -> np.ndarray:
    codes = np.unique(patients, return_inverse=True)[1]
    return np.bincount(codes, errors) / np.bincount(codes)


def _chunks(length: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, length, _CHUNK)]


def _check_patients(values: np.ndarray, patients: np.ndarray, name: str) -> None:
    if np.shape(patients) != (len(values),) or len(np.unique(patients)) < 2:
        raise InputError(f"{name}_patients must name two or more patients, one for each of the {len(values)} {name}.")


def _check(ndim: int, **arrays: np.ndarray) -> None:
    """Refuse what are no images (three axes), rows (two) or errors (one) of equal size."""
    axes = ("(N,)", "(N, D)", "(N, H, W)")[ndim - 1]
    bounds, expected = ((0, 1), "values in [0, 1]") if ndim == 3 else ((-_LARGEST, _LARGEST), "finite values")
    shape = next(iter(arrays.values())).shape[1:]
    for name, array in arrays.items():
        if array.ndim != ndim or 0 in array.shape or not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{name} must be floats of shape {axes}, not {array.dtype} of shape {array.shape}.")
        if array.shape[1:] != shape:
            raise InputError(f"{' and '.join(arrays)} differ in size: {name} has {array.shape[1:]}, not {shape}.")
        low, high = array.min(), array.max()
        if not bounds[0] <= low <= high <= bounds[1]:  # false for NaN too
            raise InputError(f"{name} holds values from {low} to {high}; expected {expected}.")
