"""What an evaluation has finished, kept until its report is written."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.evaluation.report import Report, Rows
from hcm_hf.evaluation.typed import plain, read_typed
from hcm_hf.utils.files import read_json, write_text


PARTS_FOLDER = ".parts"


@dataclass(frozen=True)
class _Kept:
    key: str
    figures: list[str]
    rows: Rows


class KeptParts:
    """Parts that are finished, in files with their figures, so that an interrupted evaluation goes on.

    Args:
        output_dir: where they are kept, in `PARTS_FOLDER`; None keeps nothing.
        report: what it says before the parts: of other settings nothing is taken over.
        comparison: what is compared: of other images neither.
    """

    def __init__(self, output_dir: Path | None, report: Report, comparison: Comparison):
        self.folder = output_dir / PARTS_FOLDER if output_dir else None
        digest = hashlib.sha256(json.dumps(report.to_json(), sort_keys=True).encode())
        if comparison.encoder is not None:
            digest.update((comparison.encoder.features.hash + comparison.encoder.segmenter.hash).encode())
        arrays = [comparison.generated.images]
        if comparison.generated.pairs is not None:
            arrays += vars(comparison.generated.pairs).values()
        for one in (comparison.reference.all_seen, comparison.reference.all_heldout):
            arrays += (one.images, one.masks, one.groups, one.phases, one.positions)
        if comparison.model is not None:
            arrays.append(next(comparison.model.unet.parameters()).detach().cpu().numpy())
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        self.key = digest.hexdigest()

    def get(self, name: str, assess: Callable[[Path | None], Rows]) -> Rows:
        """What is kept of a part, or what `assess` says of it, which is given a folder for its figures."""
        if self.folder is None:
            return assess(None)
        path = self.folder / f"{name}.json"
        if path.is_file():
            with suppress(ValueError):  # what is damaged is done again
                kept = read_typed(_Kept, read_json(path))
                if kept.key == self.key and kept.figures == [figure.name for figure in self.figures(name)]:
                    return kept.rows
        shutil.rmtree(self.folder / name, ignore_errors=True)
        rows = assess(self.folder / name)
        figures = [figure.name for figure in self.figures(name)]
        write_text(path, json.dumps(plain(_Kept(self.key, figures, rows))))
        return rows

    def figures(self, name: str) -> list[Path]:
        """The figures of a part that is finished."""
        assert self.folder is not None  # there are none where nothing is kept
        return sorted((self.folder / name).glob("*.png"))
