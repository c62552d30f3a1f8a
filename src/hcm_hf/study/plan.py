"""What a reproduction is to make, its dataset, and the record of what was done where."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from accelerate import Accelerator

from hcm_hf.data.dataset import load_dataset, prepare_dataset
from hcm_hf.data.phantom import write_cohort
from hcm_hf.data.preparation import REPORT_FILE as PREPARATION_FILE
from hcm_hf.data.slices import Slices
from hcm_hf.data.vocabulary import Chosen, Vocabulary
from hcm_hf.utils import files
from hcm_hf.utils.devices import describe_environment
from hcm_hf.utils.files import write_text


RECORD_FILE, ENVIRONMENT_FILE = "reproduction.json", "environment.json"


@dataclass(frozen=True)
class Plan:
    """What is to be reproduced, and where."""

    work_dir: Path  # of the dataset, runs, images and reports
    output_dir: Path  # of the results
    dataset: Path  # made if it is missing
    acdc: Path | None  # what to make it from; None for the synthetic cohort
    settings: dict  # what cannot change from call to call, by the names of the arguments of `reproduce`
    arguments: dict  # of this call, recorded with the results
    num_images: int  # of each family
    num_epochs: int | None  # most of a training; None for those of the recipes
    accelerator: Accelerator
    groups: tuple[str, ...]  # of the patients, by name
    _slices: dict[tuple[str, ...], tuple[Slices, Slices]] = field(default_factory=dict)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The groups, and the disease of interest."""
        return Vocabulary(self.groups, self.settings["target_group"])

    def is_prepared(self) -> bool:
        """Whether the dataset is there; its patients are checked before the first stage."""
        prepared = read_json(self.dataset / PREPARATION_FILE)
        return bool(prepared) and all(prepared[name] == self.settings[name] for name in ("source", "resolution"))

    def prepare(self) -> None:
        """Prepare ACDC, or else draw the synthetic cohort and prepare that."""
        with TemporaryDirectory() as folder:
            cohort = self.acdc or Path(folder) / "cohort"
            if not self.acdc:
                write_cohort(cohort, num_proc=1)
            prepare_dataset(cohort, self.dataset, self.settings["resolution"])

    def slices(self, chosen: Chosen) -> tuple[Slices, Slices]:
        """Return the training and validation slices of some groups; they are decoded once."""
        groups = self.vocabulary.choose(chosen)
        if groups not in self._slices:
            splits = load_dataset(self.dataset)
            self._slices[groups] = Slices(splits["train"], groups), Slices(splits["validation"], groups)
        return self._slices[groups]

    def calls(self) -> list[dict]:
        """Return what was done where: `environment`, `arguments` and `seconds` by stage, for each kind of call.

        The seconds are None for a stage that was begun and never ended.
        """
        record = read_json(self.work_dir / RECORD_FILE)
        if "calls" in record or not record:
            return record.get("calls", [])
        formerly = read_json(self.output_dir / ENVIRONMENT_FILE)  # older versions described the last call only
        return [{"environment": None, "arguments": None, "seconds": record["seconds"], "last_call": formerly}]

    def note(self, name: str, seconds: float | None = None) -> None:
        """Record that a stage is begun here and now or, with `seconds`, how long it has taken."""
        environment = describe_environment(self.accelerator.device)
        environment["num_processes"] = self.accelerator.num_processes
        here = json.loads(json.dumps({"environment": environment, "arguments": self.arguments}))  # as it is read back
        calls = self.calls()
        if not calls or here != {key: calls[-1][key] for key in here}:
            calls.append(here | {"seconds": {}})
        taken = calls[-1]["seconds"]
        taken[name] = taken.get(name) if seconds is None else (taken.get(name) or 0.0) + seconds
        record = {"settings": self.settings, "calls": calls}
        write_text(self.work_dir / RECORD_FILE, json.dumps(record, indent=2) + "\n")


def read_json(path: Path) -> dict:
    """Return the content of a JSON file; empty if there is none."""
    return files.read_json(path) if path.is_file() else {}
