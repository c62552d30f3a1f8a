"""The phantom's heart: two ventricles that beat, as contours in mm.

The left ventricle is half an ellipsoid whose wall keeps its volume while it shortens and thickens; the right one is a
crescent around the septum. Angles are measured at the left ventricle's axis from the middle of the septum, z in mm
from the base at end diastole towards the apex.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


ANGLES = np.linspace(-np.pi, np.pi, 720, endpoint=False, dtype=np.float32)
_WIDEST = 0.15  # level of the widest slice: 0 is the base, 1 the tip of the cavity
_FILL = 1 - ((1 - _WIDEST) ** 3 + _WIDEST**3) / (3 * (1 - _WIDEST) ** 2)  # volume over that of a cylinder
_RV_APEX = 0.93  # level at which the right ventricle ends
_LEVELS = np.linspace(0.02, 0.98, 25)
Ripples = tuple[tuple[int, float, float], ...]  # order, amplitude, phase


def _bump(offset: np.ndarray, width: float) -> np.ndarray:
    """Smooth periodic bump: 1 where the angle `offset` is 0, with a standard deviation of about `width` rad."""
    return np.exp((np.cos(offset) - 1) / width**2)


@dataclass(frozen=True)
class Ring:
    """One slice through the heart: radius in mm from the left ventricle's axis at each of `ANGLES`.

    `level` is below 0 above the base, where the atrium is; `endo` is 0 beyond the cavity's tip.
    """

    level: float
    endo: np.ndarray
    epi: np.ndarray
    rv: np.ndarray


@dataclass(frozen=True)
class Heart:
    """Both ventricles of one patient at end diastole: mL, mm and rad; levels run from 0, the base, to 1, the tip."""

    lv_volume: float  # of the cavity
    lv_ejection: float  # the share of it that end systole expels
    rv_volume: float
    rv_ejection: float
    wall: float  # thickness of the left ventricle's wall away from its thickest segment
    thickest: float  # its greatest thickness, and where that is
    thickest_angle: float
    thickest_level: float
    scar: float  # width of a thin segment that does not move, 0 for none, and where that is
    scar_angle: float
    scar_level: float
    slenderness: float  # the cavity's length over its diameter
    flattening: float  # of the septum, as a share of the cavity's radius
    rv_corner: float  # how triangular the right ventricle is
    rv_skew: float  # how far it is turned
    ripples: Ripples  # departures of the cavity from a circle
    wall_ripples: Ripples  # the same of the wall

    @cached_property
    def radius(self) -> float:
        """Radius of the widest slice of the cavity at end diastole, mm."""
        return (1000 * self.lv_volume / (2 * np.pi * _FILL * self.slenderness)) ** (1 / 3)

    @cached_property
    def length(self) -> float:
        """From the base to the tip of the cavity at end diastole, mm."""
        return 2 * self.slenderness * self.radius

    def ring(self, z: float, contraction: float) -> Ring:
        """Cut the heart at `z`; `contraction` runs from 0 (end diastole) to 1 (end systole)."""
        length = self._length(contraction)
        level = (z - self.length + length) / length  # the base descends, the apex stays
        if level >= 1:
            tip = np.sqrt(max(0.0, 1 - ((z - self.length) / self.wall) ** 2)) * 0.7 * self.wall
            return Ring(level, np.zeros_like(ANGLES), np.full_like(ANGLES, tip), np.zeros_like(ANGLES))
        relaxed, outer = self._diastole(max(level, 0.0))
        endo = relaxed * (1 - self._squeeze(contraction) * (1 - self._scarred(max(level, 0.0))))
        folded = 1 + 0.15 * self.lv_ejection * contraction  # trabeculae that a reader counts as wall once they fold in
        epi = np.sqrt(endo**2 + (outer**2 - relaxed**2) * self.length / length * folded)  # the wall keeps its volume
        return Ring(level, endo, epi, self._right(epi, level, contraction))

    def _length(self, contraction: float) -> float:
        return self.length * (1 - 0.16 * self.lv_ejection * contraction)

    def _diastole(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        radius = self.radius * np.sqrt(1 - ((level - _WIDEST) / (1 - _WIDEST)) ** 2)
        thick = _bump(ANGLES - self.thickest_angle, 0.8) * np.exp(-(((level - self.thickest_level) / 0.38) ** 2))
        wall = self.wall * (1 - 0.15 * level) * (1 + _waves(self.wall_ripples)) + (self.thickest - self.wall) * thick
        wall = wall - 0.5 * self.wall * self._scarred(level)
        shape = radius * (1 + _waves(self.ripples))
        shape = shape - 0.6 * (wall - wall.mean()) - self.flattening * radius * _bump(ANGLES, 0.6)
        shape = np.maximum(shape, 0.35 * radius)
        endo = shape * radius / np.sqrt(np.mean(shape**2))  # the area of a circle of `radius`
        return endo, endo + wall

    def _scarred(self, level: float) -> np.ndarray:
        if not self.scar:
            return np.zeros_like(ANGLES)
        away = np.abs((ANGLES - self.scar_angle + np.pi) % (2 * np.pi) - np.pi)
        across = np.clip((0.5 * self.scar - away) / 0.35 + 0.5, 0, 1)
        return across * np.clip((0.42 - abs(level - self.scar_level)) / 0.15 + 0.5, 0, 1)

    @cached_property
    def _moments(self) -> tuple[float, float]:
        """Mean mobility and mean squared mobility over the cavity's volume."""
        endo = np.stack([self._diastole(level)[0] for level in _LEVELS])
        mobility = np.stack([1 - self._scarred(level) for level in _LEVELS])
        return np.average(mobility, weights=endo**2), np.average(mobility**2, weights=endo**2)

    def _squeeze(self, contraction: float) -> float:
        """The inward motion, as a share of the radius, at which the ejection fraction comes out as it should."""
        mean, square = self._moments
        area = (1 - self.lv_ejection * contraction) * self.length / self._length(contraction)
        return (mean - np.sqrt(max(mean**2 - square * (1 - area), 0.0))) / square

    def _right(self, epi: np.ndarray, level: float, contraction: float) -> np.ndarray:
        """Outer radius of the right ventricle; its slice's area follows from its volume and ejection fraction."""
        level = max(level, 0.0)
        if level >= _RV_APEX:
            return np.zeros_like(ANGLES)
        share, shares = _rv_share(level), np.mean([_rv_share(one) for one in _LEVELS])
        volume = 1000 * self.rv_volume * (1 - self.rv_ejection * contraction)
        area = volume * share / (shares * self._length(contraction))
        reach = 1.25 - 0.6 * level**2  # half the angle that it spans
        angle = ANGLES + self.rv_skew * (1 - level)
        depth = np.sqrt(np.clip(1 - (angle / reach) ** 4, 0, 1)) * (1 + self.rv_corner * np.sin(angle) ** 2)
        step = 2 * np.pi / len(ANGLES)
        square, linear = 0.5 * step * np.sum(depth**2), step * np.sum(epi * depth)
        return epi + depth * (np.sqrt(linear**2 + 4 * square * area) - linear) / (2 * square)


def _rv_share(level: float) -> float:
    return (0.8 + 0.2 * min(level / 0.2, 1)) * max(0.0, 1 - (level / _RV_APEX) ** 1.8)


def _waves(ripples: Ripples) -> np.ndarray:
    return sum(size * np.cos(order * ANGLES + phase) for order, size, phase in ripples)
