"""The whole state of a training run, in one safetensors file."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from hcm_hf.training.ema import AveragedWeights
from hcm_hf.training.objectives.base import Objective
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import check_sums


STATE_FILE = "training_state.safetensors"


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: number of optimizer steps taken; all randomness is a function of it.
        best_step: the step with the lowest validation loss.
        best_loss: the lowest validation loss.
        seconds: wall time spent training so far.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    seconds: float = 0.0


@dataclass
class TrainingState:
    """Everything that a resumed run needs to equal an uninterrupted one.

    Attributes:
        objective: the networks.
        average: EMA of the sampled network.
        optimizers: the optimizer of each network, by the network's name.
        scaler: the gradient scaler of fp16 training, else None.
        progress: the counters.
    """

    objective: Objective
    average: AveragedWeights
    optimizers: dict[str, torch.optim.Optimizer]
    scaler: torch.amp.GradScaler | None
    progress: Progress

    def save(self, folder: Path) -> None:
        """Write the state into `folder`."""
        tensors = {f"objective.{name}": tensor for name, tensor in self.objective.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.weights.items()}
        for network, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{network}.{index}.{key}": tensor for key, tensor in values.items()}
        scaler = self.scaler.state_dict() if self.scaler else None
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"progress": json.dumps(vars(self.progress)), "scaler": json.dumps(scaler)}
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, folder / STATE_FILE, metadata)

    def load(self, folder: Path) -> None:
        """Read the state back.

        Raises:
            InputError: if the file is damaged or of other networks.
        """
        path = folder / STATE_FILE
        check_sums(folder, STATE_FILE)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.objective.load_state_dict(_below("objective.", tensors))
            device = next(self.objective.parameters()).device
            average = _below("average.", tensors)
            self.average.weights = {name: average[name].to(device) for name in self.average.weights}
            for network, optimizer in self.optimizers.items():
                state: dict[int, dict[str, torch.Tensor]] = {}
                for name, tensor in _below(f"optimizer.{network}.", tensors).items():
                    index, key = name.split(".")
                    state.setdefault(int(index), {})[key] = tensor
                optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
            self.progress = Progress(**json.loads(metadata["progress"]))
            if self.scaler:
                self.scaler.load_state_dict(json.loads(metadata["scaler"]))
        except (OSError, SafetensorError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is damaged or of another model; delete {folder} to train anew.") from error


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
