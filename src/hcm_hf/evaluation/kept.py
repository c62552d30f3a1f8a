"""What an evaluation has finished, kept until its report is written."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hcm_hf.evaluation.comparison import Comparison
from hcm_hf.utils.files import write_text


PARTS_FOLDER = ".parts"


class KeptParts:
    """Parts that are done, in files with their figures, so that an interrupted evaluation of the same things goes on.

    Args:
        output_dir: where they are kept, in `PARTS_FOLDER`; None keeps nothing.
        report: what it says before the parts: of other settings nothing is taken over.
        comparison: what is compared: of other images neither.
    """

    def __init__(self, output_dir: Path | None, report: dict, comparison: Comparison):
        self.folder = output_dir / PARTS_FOLDER if output_dir else None
        digest = hashlib.sha256(json.dumps(report, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(comparison.generated))
        judges = [*comparison.extractors, *([comparison.encoder] if comparison.encoder else [])]
        digest.update("".join(judge.hash for judge in judges).encode())
        sets = [comparison.training, comparison.seen, comparison.heldout]
        if comparison.pairs is not None:
            sets += [comparison.all_training, comparison.all_heldout]
            for array in vars(comparison.pairs).values():
                digest.update(np.ascontiguousarray(array))
        for one in sets:
            for array in (one.images, one.masks, one.groups, one.phases, one.positions):
                digest.update(np.ascontiguousarray(array))
        if comparison.model is not None:
            digest.update(next(comparison.model.unet.parameters()).detach().cpu().numpy())
        self.key = digest.hexdigest()

    def get(self, name: str, assess: Callable[[Path | None], dict]) -> dict:
        """What is kept of a part, or what `assess` says of it, which is given a folder for its figures."""
        if self.folder is None:
            return assess(None)
        path = self.folder / f"{name}.json"
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] == self.key and kept["figures"] == [figure.name for figure in self.figures(name)]:
                return kept["result"]
        shutil.rmtree(self.folder / name, ignore_errors=True)
        result = assess(self.folder / name)
        figures = [figure.name for figure in self.figures(name)]
        write_text(path, json.dumps({"key": self.key, "figures": figures, "result": result}))
        return result

    def figures(self, name: str) -> list[Path]:
        """The figures of a part that is done."""
        return sorted((self.folder / name).glob("*.png"))
