"""Numbers with 95 % intervals by bootstrap over patients: patients, not slices, are the sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


RESAMPLES = 1000


@dataclass(frozen=True)
class Number:
    """A number of a report.

    Attributes:
        value: None where nothing could be compared, as are the next two.
        low: lower end of the 95 % interval.
        high: upper end.
        protocol: which images were compared with which.
        n_generated: offered images.
        n_real: real images.
        n_patients: their patients.
        n_each: images of each set, where as many are drawn from both.
        encoder: hash of the encoder.
        structure: name of the segmented structure.
    """

    value: float | None
    low: float | None
    high: float | None
    protocol: str = ""
    n_generated: int | None = None
    n_real: int | None = None
    n_patients: int | None = None
    n_each: int | None = None
    encoder: str | None = None
    structure: str | None = None

    def __post_init__(self) -> None:
        if len({one is None for one in (self.value, self.low, self.high)}) > 1:
            raise ValueError(f"a number is {self.value} with the interval {self.low} to {self.high}")

    @classmethod
    def estimate(cls, value: float, resampled: np.ndarray, bounds: tuple[float, float], **about: Any) -> "Number":
        """A value with the interval of its resamples.

        The interval is shifted by the bootstrap's own bias: a resample misses a third of the patients, so its best
        matches are worse than those among all of them.

        Args:
            value: the value.
            resampled: the same for every resample, (resamples,); those that are not finite do not count.
            bounds: of the interval.
            about: the other attributes.
        """
        resampled = resampled[np.isfinite(resampled)]
        if not len(resampled):
            return cls(None, None, None, **about)
        interval = np.quantile(resampled, (0.025, 0.975)) + (value - resampled.mean())
        low, high = (float(end) for end in interval.clip(*bounds))
        return cls(float(value), low, high, **about)

    @classmethod
    def unknown(cls, **about: Any) -> "Number":
        """A number of nothing."""
        return cls(None, None, None, **about)


def bootstrap_draws(patients: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The index of each row's patient, (N,), and `RESAMPLES` resamples of the patients, (RESAMPLES, patients)."""
    names, codes = np.unique(patients, return_inverse=True)
    return codes, generator.integers(len(names), size=(RESAMPLES, len(names)))


def resample(statistic: Callable[[np.ndarray], float], codes: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """A statistic of each resample of patients, (resamples,); it is given the resample's rows as indices."""
    rows_of = [np.flatnonzero(codes == patient) for patient in range(draws.shape[1])]
    return np.array([statistic(np.concatenate([rows_of[patient] for patient in draw])) for draw in draws])


def mean_over_pairs(values: np.ndarray, codes: np.ndarray, draws: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of the pairs' values, (P,), and the same for every resample of patients; `codes` (P,) is each pair's."""
    return ratio_over_pairs(values, np.ones(len(values)), codes, draws)


def ratio_over_pairs(
    values: np.ndarray, sizes: np.ndarray, codes: np.ndarray, draws: np.ndarray
) -> tuple[float, np.ndarray]:
    """Sum of values, (P,), over the sum of sizes, (P,), and the same for every resample of patients."""
    above, below = (np.bincount(codes, weights, minlength=draws.shape[1]) for weights in (values, sizes))
    with np.errstate(invalid="ignore"):  # no pair at all: not a number
        return float(above.sum() / below.sum()), above[draws].sum(1) / below[draws].sum(1)


def mean_over_images(values: np.ndarray, generator: np.random.Generator) -> tuple[float, np.ndarray]:
    """Mean of images' values, (N,), and the same for every resample of the images."""
    return float(values.mean()), np.array([generator.choice(values, len(values)).mean() for _ in range(RESAMPLES)])
