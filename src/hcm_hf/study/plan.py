"""What a reproduction is to make, and the record of what was done where."""

import json
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from hcm_hf.utils.devices import describe_environment
from hcm_hf.utils.files import write_text


RECORD_FILE, ENVIRONMENT_FILE = "reproduction.json", "environment.json"


@dataclass(frozen=True)
class Plan:
    """What is to be reproduced, and where.

    Attributes:
        work_dir: where the work goes on.
        output_dir: where the results go.
        dataset: the prepared dataset, which may have to be made.
        acdc: what to make it from; None for the synthetic cohort.
        settings: what cannot change from call to call, by the names of the arguments of `reproduce`.
        arguments: of the call, to be noted with the results.
        num_images: of each family.
        num_epochs: at most; None leaves it to the recipes.
        accelerator: the devices.
    """

    work_dir: Path
    output_dir: Path
    dataset: Path
    acdc: Path | None
    settings: dict
    arguments: dict
    num_images: int
    num_epochs: int | None
    accelerator: Accelerator

    def calls(self) -> list[dict]:
        """What was done where: for calls alike their `environment`, their `arguments`, and `seconds` by stage.

        The seconds are None for a stage that was begun and never came back to say.
        """
        record = read_json(self.work_dir / RECORD_FILE)
        if "calls" in record or not record:
            return record.get("calls", [])
        formerly = read_json(self.output_dir / ENVIRONMENT_FILE)  # described the last call alone
        return [{"environment": None, "arguments": None, "seconds": record["seconds"], "last_call": formerly}]

    def seconds(self) -> dict[str, float]:
        """What each stage has taken so far in all calls, by name."""
        taken: dict[str, float] = {}
        for call in self.calls():
            for name, seconds in call["seconds"].items():
                if seconds is not None:
                    taken[name] = taken.get(name, 0.0) + seconds
        return taken

    def note(self, name: str, seconds: float | None = None) -> None:
        """Note that a stage is begun here and now or, with `seconds`, what it has taken."""
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
    """The content of a JSON file; empty if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
