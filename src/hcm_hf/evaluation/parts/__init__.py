"""The parts of a report: each compares generated images with real slices in one respect, and draws its figure.

A part is a function of a `Comparison` and of a folder for its figures, None for none. It returns rows of numbers: the
generated images, real slices in their place and, in most, the mean image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.extractors import is_installed
from hcm_hf.evaluation.parts.anatomy import anatomy_rows
from hcm_hf.evaluation.parts.appearance import appearance_rows
from hcm_hf.evaluation.parts.features import COMPONENTS, feature_rows
from hcm_hf.evaluation.parts.masks import mask_rows
from hcm_hf.evaluation.parts.membership import can_test_membership, membership_rows
from hcm_hf.evaluation.parts.memorization import memorization_rows
from hcm_hf.evaluation.parts.realism import realism_rows
from hcm_hf.evaluation.parts.similarity import similarity_rows
from hcm_hf.evaluation.report import Rows


@dataclass(frozen=True)
class Part:
    """One part of the report.

    Attributes:
        assess: `assess(comparison, figures)` gives its rows and draws into the folder `figures`.
        applies: whether a comparison has what it takes.
        missing: a sentence for the reader where it does not; empty for what only some models have.
        partly: gives a sentence on the numbers of a comparison that are left out; empty if none are.
        least: generated, held-out and training slices that it takes each.
        name_least: the number that asks for so many.
    """

    assess: Callable[[Comparison, Path | None], Rows]
    applies: Callable[[Comparison], bool] = lambda comparison: True
    missing: str = ""
    partly: Callable[[Comparison], str] = lambda comparison: ""
    least: int = 1
    name_least: str = ""


def _has_encoder(comparison: Comparison) -> bool:
    return comparison.encoder is not None


def _untold_groups(comparison: Comparison) -> str:
    """Why numbers on the group that the segmenter takes a slice for are left out; empty if they are not."""
    if comparison.encoder is None or comparison.told_groups:
        return ""
    known = ", ".join(comparison.encoder.segmenter.group_names)
    return (
        f"group_share, asked_group_share and the encoder's auc: the encoder tells {known} apart, and the dataset has "
        "other groups; train one on this dataset."
    )


_NO_ENCODER = "needs an encoder: train one with scripts/train_encoder.py and name it with `encoder`."
_NO_EXTRA = "c2st_auc, kid_imagenet and patient_recall need the extra realism: pip install 'hcm_hf[realism]'."
PARTS = {
    "similarity": Part(similarity_rows),
    "appearance": Part(appearance_rows),
    "realism": Part(realism_rows, partly=lambda comparison: "" if is_installed() else _NO_EXTRA),
    "features": Part(
        feature_rows,
        _has_encoder,
        missing=f"the distance of distributions {_NO_ENCODER}",
        least=COMPONENTS + 1,
        name_least=f"fd of {COMPONENTS} components",
    ),
    "memorization": Part(memorization_rows),
    "anatomy": Part(anatomy_rows, _has_encoder, missing=f"the anatomy {_NO_ENCODER}", partly=_untold_groups),
    "masks": Part(mask_rows, lambda comparison: comparison.generated.pairs is not None),
    "membership": Part(membership_rows, can_test_membership),
}
