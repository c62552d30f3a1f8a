"""Whether images pass for real: what a fixed classifier can tell, and the finest texture.

Images are floating-point arrays (N, H, W) in [0, 1]. Features are those of a network that no generator is trained
with: any fixed extractor of natural images will do. Nothing here may choose a checkpoint, train a model or augment
its data, or it no longer measures.

Every function raises `InputError` for malformed arrays, NaN, too few rows and too few patients.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from scipy.stats import kurtosis

from hcm_hf.metrics.arrays import check_features
from hcm_hf.metrics.ranking import roc_auc
from hcm_hf.utils.errors import InputError


COMPONENTS = 32  # of the features that the two-sample test sees
FOLDS = 5
BRIGHT = 0.6  # a brighter pixel is bright: fat, as a rule
HEART_RADIUS = 56.0  # mm from the image's centre; the chest wall lies farther out

_MEDIAN_OF_NORMAL = 0.6745  # median of |x| for a standard normal x
_INVERSE_REGULARISATION = 0.1  # scikit-learn's C


@dataclass(frozen=True)
class TwoSampleTest:
    """What a classifier says of images that it was not trained on: the higher a score, the more it looks generated.

    Attributes:
        generated: scores, (N,).
        real: scores, (M,).
        generated_folds: the fold in which each was left out, (N,).
        real_folds: the same, (M,).
    """

    generated: np.ndarray
    real: np.ndarray
    generated_folds: np.ndarray
    real_folds: np.ndarray

    def auc(self, kept: np.ndarray | None = None) -> float:
        """Area under the ROC curve, averaged over the folds: .5 if nothing can be told apart, 1 for everything.

        Args:
            kept: rows of `real` to use, with repetitions; by default all. Folds without any of them do not count.
        """
        kept = np.arange(len(self.real)) if kept is None else kept
        areas = []
        for fold in np.unique(self.real_folds):
            ours, theirs = self.generated[self.generated_folds == fold], self.real[kept][self.real_folds[kept] == fold]
            kinds = np.repeat([True, False], [len(ours), len(theirs)])
            areas.append(roc_auc(np.concatenate([ours, theirs]), kinds))
        known = np.isfinite(areas)
        return float(np.mean(np.array(areas)[known])) if known.any() else float("nan")


def two_sample_test(
    generated: np.ndarray,
    real: np.ndarray,
    patients: np.ndarray,
    generated_patients: np.ndarray | None = None,
    seed: int = 0,
) -> TwoSampleTest:
    """Classifier two-sample test, https://huggingface.co/papers/1610.06545 (Lopez-Paz & Oquab 2016).

    Logistic regression on the first `COMPONENTS` principal components of the features, both fitted anew for each of
    `FOLDS` folds. A patient is never in two folds. The classifier is weak on purpose: a trained network tells any
    generator from real slices, and its score would say nothing.

    Args:
        generated: features, (N, D).
        real: features, (N, D), as many.
        patients: of each real row, (N,).
        generated_patients: the same where real slices are offered as generated; by default each row is by itself.
        seed: of the folds.

    Raises:
        InputError: also if there are fewer than two patients, fewer rows than folds, or scikit-learn is missing.
    """
    try:
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold
        from sklearn.pipeline import make_pipeline
    except ImportError as error:
        raise InputError("The two-sample test needs scikit-learn; pip install 'hcm_hf[realism]'.") from error
    for name, features in (("generated", generated), ("real", real)):
        check_features(name, features)
    if generated.shape != real.shape:
        raise InputError(f"generated is {generated.shape} and real {real.shape}; the test takes equally many rows.")
    folds = min(FOLDS, _count_patients(patients, real))
    if len(real) < FOLDS:
        raise InputError(f"real has {len(real)} rows, fewer than the {FOLDS} folds of the two-sample test.")
    if generated_patients is None:
        generated_patients = np.array([f"\0{row}" for row in range(len(generated))])  # of no patient's name
    features = np.concatenate([generated, real])
    is_generated = np.repeat([True, False], len(real))
    owners = np.unique(np.concatenate([generated_patients, patients]), return_inverse=True)[1]
    scores, fold_of = np.empty(len(features)), np.empty(len(features), int)
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, is_generated, owners)
    for fold, (known, left_out) in enumerate(splits):
        components = min(COMPONENTS, len(known) - 1, features.shape[1])
        classifier = make_pipeline(
            PCA(components, svd_solver="randomized", random_state=seed),
            LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=1000),
        )
        classifier.fit(features[known].astype(np.float64), is_generated[known])
        scores[left_out] = classifier.decision_function(features[left_out].astype(np.float64))
        fold_of[left_out] = fold
    return TwoSampleTest(scores[is_generated], scores[~is_generated], fold_of[is_generated], fold_of[~is_generated])


def c2st_auc(
    generated: np.ndarray,
    real: np.ndarray,
    patients: np.ndarray,
    generated_patients: np.ndarray | None = None,
    seed: int = 0,
) -> float:
    """How well a classifier tells generated images from real ones: the `auc` of `two_sample_test`.

    Args:
        generated: features, (N, D).
        real: features, (N, D), as many.
        patients: of each real row, (N,).
        generated_patients: the same where real slices are offered as generated.
        seed: of the folds.

    Returns:
        About .5 if it cannot, the goal; 1 if it always can. Real slices of few patients differ from those of others
        by themselves, so compare it with what other real patients score.
    """
    return two_sample_test(generated, real, patients, generated_patients, seed).auc()


def reached_patients(generated: np.ndarray, real: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Which real patients have a generated slice nearby: nearer to one of their slices than other patients come to it.

    Args:
        generated: features, (N, D).
        real: features, (M, D).
        patients: of each real row, (M,).

    Returns:
        bool (patients,), in the order of `numpy.unique`. The share of them is the recall of patients, higher is
        better. It grows with N: compare only values at equal numbers.
    """
    check_features("generated", generated, least=1)
    check_features("real", real)
    if generated.shape[1] != real.shape[1]:
        raise InputError(f"generated has {generated.shape[1]} features per image, but real has {real.shape[1]}.")
    _count_patients(patients, real)
    names, codes = np.unique(patients, return_inverse=True)
    between = cdist(real, real)
    between[codes[:, None] == codes] = np.inf
    reached = cdist(real, generated).min(1) <= between.min(1)
    return np.array([reached[codes == code].any() for code in range(len(names))])


def noise_level(images: np.ndarray) -> np.ndarray:
    """Standard deviation of the noise in each image, by the median of its diagonal Haar coefficients.

    https://doi.org/10.1093/biomet/81.3.425 (Donoho & Johnstone 1994): median |d| / .6745, where d is half of
    a - b - c + d of each square of 2 x 2 pixels. Edges are few, so the median hardly sees them.

    Args:
        images: (N, H, W).

    Returns:
        (N,), in units of the images; about sigma for white noise of that standard deviation.
    """
    return np.median(np.abs(_diagonal(images)), axis=(1, 2)) / _MEDIAN_OF_NORMAL


def edge_kurtosis(images: np.ndarray) -> np.ndarray:
    """Excess kurtosis of each image's diagonal Haar coefficients: high where detail is sparse, as in edges.

    Args:
        images: (N, H, W).

    Returns:
        (N,); 0 for white noise, 6 or so for cardiac cine at 2 mm. Not a number for a constant image.
    """
    return kurtosis(_diagonal(images).reshape(len(images), -1), axis=1)


def edge_coherence(images: np.ndarray) -> np.ndarray:
    """How far the gradients of a neighbourhood agree in their direction, on average over an image.

    (l1 - l2) / (l1 + l2) of the structure tensor's eigenvalues (smoothed with a standard deviation of one pixel),
    weighted by l1 + l2: https://doi.org/10.1023/A:1008009714131 (Weickert 1999).

    Args:
        images: (N, H, W).

    Returns:
        (N,), from 0 for grain to 1 for straight edges; not a number for a constant image.
    """
    images = _check_images(images)
    down, right = np.gradient(images, axis=(1, 2))
    yy, xx, yx = (gaussian_filter(product, (0, 1, 1)) for product in (down**2, right**2, down * right))
    difference = np.sqrt((yy - xx) ** 2 + 4 * yx**2)
    with np.errstate(invalid="ignore"):
        return difference.sum((1, 2)) / (yy + xx).sum((1, 2))


def brightness_spread(images: np.ndarray) -> float:
    """Standard deviation of the images' mean brightness; real HCM slices of ACDC have .075, and less is less varied.

    Args:
        images: (N, H, W).
    """
    return float(_check_images(images).mean((1, 2)).std())


def bright_outside_heart(images: np.ndarray, pixel_spacing: float) -> np.ndarray:
    """Share of bright pixels among those far from the centre, in each image: the chest wall and its fat.

    Args:
        images: (N, H, W), centred on the heart.
        pixel_spacing: mm.

    Returns:
        (N,), in [0, 1]: pixels above `BRIGHT` of those beyond `HEART_RADIUS`.
    """
    images = _check_images(images)
    rows, columns = (np.arange(size) - (size - 1) / 2 for size in images.shape[1:])
    outside = np.hypot(rows[:, None], columns) * pixel_spacing > HEART_RADIUS
    if not outside.any():
        raise InputError(f"images reach {images.shape[1] * pixel_spacing:g} mm, not beyond {HEART_RADIUS:g} mm.")
    return (images[:, outside] > BRIGHT).mean(1)


def z_between_patients(means: np.ndarray, real: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """How far the means of sets of images lie from that of real patients, in standard deviations between patients.

    Args:
        means: one or more means, of any shape.
        real: of real slices, (M,).
        patients: of each real slice, (M,).

    Returns:
        As `means`: about -1 to 1 for a real patient; far from 0 is unlike real ones. Not a number where the patients
        are all alike.
    """
    _count_patients(patients, real)
    of_patients = np.array([real[patients == patient].mean() for patient in np.unique(patients)])
    spread = of_patients.std(ddof=1)
    return (np.asarray(means) - of_patients.mean()) / (spread if spread > 0 else np.nan)


def _diagonal(images: np.ndarray) -> np.ndarray:
    """The diagonal Haar coefficients of all squares, (N, H - 1, W - 1)."""
    images = _check_images(images)
    return (images[:, :-1, :-1] - images[:, :-1, 1:] - images[:, 1:, :-1] + images[:, 1:, 1:]) / 2


def _check_images(images: np.ndarray) -> np.ndarray:
    if images.ndim != 3 or min(images.shape) < 1 or min(images.shape[1:]) < 2:
        raise InputError(f"images have shape {images.shape}; expected (N, H, W) with at least 2 x 2 pixels.")
    if not np.isfinite(images).all():
        raise InputError("images hold NaN or infinite values.")
    return images.astype(np.float64)


def _count_patients(patients: np.ndarray, real: np.ndarray) -> int:
    if len(patients) != len(real):
        raise InputError(f"patients has {len(patients)} entries for {len(real)} real slices.")
    if (count := len(np.unique(patients))) < 2:
        raise InputError(f"real has {count} patient(s), but at least 2 are needed.")
    return count
