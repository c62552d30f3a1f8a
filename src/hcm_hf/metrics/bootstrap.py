"""Numbers with 95 % intervals by bootstrap over patients: patients, not slices, are the sample.

The interval is BCa, bias-corrected and accelerated (Efron 1987, https://doi.org/10.1080/01621459.1987.10478410), with
the arithmetic of `scipy.stats.bootstrap(method="BCa")`. That function draws anew for each statistic, and has no
interval if a single resample holds nothing to measure; here the numbers of a report share their draws, so that they
can be divided by and subtracted from each other, and such a resample is passed over.

Not all statistics can have it. BCa takes its ends from the resamples, and some statistics are biased by resampling
itself: a distance of distributions grows, since a resample misses a third of the patients and counts others twice;
the most alike of all slices is less alike; a threshold of the 99th percentile moves towards the middle. Nearly all
resamples then lie on one side of the truth. Such statistics have the percentiles of the resamples, shifted by their
mean's difference from the value; of two nearly equal distributions that interval holds the true distance more often
(the tests compare them). So have statistics that draw at random themselves, of which leaving a patient out tells
nothing, and values outside the central 95 % of their resamples.

Few patients give intervals that are too narrow, whatever the method.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri


RESAMPLES = 1000
_ENDS = np.array([0.025, 0.975])
_DIGITS = 9  # of the spread of resamples, below which two values are the same but for rounding


@dataclass(frozen=True)
class Resampled:
    """A statistic of every resample of patients or images, and without each of them.

    Attributes:
        values: of every resample, (resamples,); those that are not finite do not count.
        left_out: without each patient in turn, (patients,), an array for each set of patients that is resampled; empty
            for a statistic that resampling biases. If some are not finite, there is no acceleration.
    """

    values: np.ndarray
    left_out: tuple[np.ndarray, ...] = ()

    def interval(self, value: float) -> tuple[float, float]:
        """The 95 % interval of a value; that value alone where all resamples agree, as those of one patient do.

        Args:
            value: the same statistic of everything.
        """
        values = self.values[np.isfinite(self.values)]
        spread = np.ptp(values)
        if not spread:
            return value, value
        sides = np.sign(((values - value) / spread).round(_DIGITS))
        below = (1 - sides.mean()) / 2  # ties count half
        if not self.left_out or not _ENDS[0] < below < _ENDS[1]:
            low, high = np.quantile(values, _ENDS) + (value - values.mean())
        else:
            bias = ndtri(below)
            shifted = bias + ndtri(_ENDS)
            low, high = np.quantile(values, ndtr(bias + shifted / (1 - self._acceleration * shifted)))
        return float(low), float(high)

    @property
    def _acceleration(self) -> float:
        """How the standard error changes with the value: the skewness of the patients' influence."""
        influences = np.concatenate([(one.mean() - one) * (len(one) - 1) / len(one) for one in self.left_out])
        if not np.isfinite(influences).all() or not influences.any():
            return 0.0
        return float((influences**3).sum() / np.square(influences).sum() ** 1.5 / 6)


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
        n_patients: their patients; the interval of one has no width.
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
    def estimate(cls, value: float, resampled: Resampled, bounds: tuple[float, float], **about: Any) -> "Number":
        """A value with its interval.

        Args:
            value: the value; unknown where it or all of its resamples are not finite.
            resampled: the same of resamples.
            bounds: of the interval.
            about: the other attributes.
        """
        if not np.isfinite(value) or not np.isfinite(resampled.values).any():
            return cls.unknown(**about)
        low, high = np.clip(resampled.interval(float(value)), *bounds).tolist()
        return cls(float(value), low, high, **about)

    @classmethod
    def unknown(cls, **about: Any) -> "Number":
        """A number of nothing."""
        return cls(None, None, None, **about)


def bootstrap_draws(patients: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The index of each row's patient, (N,), and `RESAMPLES` resamples of the patients, (RESAMPLES, patients)."""
    names, codes = np.unique(patients, return_inverse=True)
    return codes, generator.integers(len(names), size=(RESAMPLES, len(names)))


def resample(statistic: Callable[[np.ndarray], float], codes: np.ndarray, draws: np.ndarray) -> Resampled:
    """A statistic of each resample of patients, and without each patient.

    Args:
        statistic: is given the rows that count, as indices; a row is there as often as its patient is drawn.
        codes: the index of each row's patient, (N,).
        draws: (resamples, patients), indices of patients.
    """
    biased = resample_biased(statistic, codes, draws)
    others = (np.flatnonzero(codes != patient) for patient in range(draws.shape[1]))
    left_out = np.array([statistic(rows) if len(rows) else np.nan for rows in others])
    return Resampled(biased.values, (left_out,))


def resample_biased(statistic: Callable[[np.ndarray], float], codes: np.ndarray, draws: np.ndarray) -> Resampled:
    """`resample` for a statistic that resampling biases, or that draws at random: without leaving patients out."""
    rows_of = [np.flatnonzero(codes == patient) for patient in range(draws.shape[1])]
    return Resampled(np.array([statistic(np.concatenate([rows_of[patient] for patient in draw])) for draw in draws]))


def mean_over_pairs(values: np.ndarray, codes: np.ndarray, draws: np.ndarray) -> tuple[float, Resampled]:
    """Mean of the pairs' values, (P,), and the same for every resample of patients; `codes` (P,) is each pair's."""
    return ratio_over_pairs(values, np.ones(len(values)), codes, draws)


def ratio_over_pairs(
    values: np.ndarray, sizes: np.ndarray, codes: np.ndarray, draws: np.ndarray
) -> tuple[float, Resampled]:
    """Sum of values, (P,), over the sum of sizes, (P,), and the same for every resample of patients."""
    above, below = (np.bincount(codes, weights, minlength=draws.shape[1]) for weights in (values, sizes))
    whole = above.sum(), below.sum()
    with np.errstate(invalid="ignore", divide="ignore"):  # no pair at all: not a number
        resampled = Resampled(above[draws].sum(1) / below[draws].sum(1), ((whole[0] - above) / (whole[1] - below),))
        return float(whole[0] / whole[1]), resampled


def mean_over_images(values: np.ndarray, generator: np.random.Generator) -> tuple[float, Resampled]:
    """Mean of images' values, (N,), and the same for every resample of the images."""
    means = np.array([generator.choice(values, len(values)).mean() for _ in range(RESAMPLES)])
    left_out = (values.sum() - values) / (len(values) - 1) if len(values) > 1 else np.full(1, np.nan)
    return float(values.mean()), Resampled(means, (left_out,))
