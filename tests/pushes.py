"""What the tests of pushes share."""

from pathlib import Path

import torch


ROOT = Path(__file__).parents[1]


def network_of(pipeline):
    return next(part for part in pipeline.components.values() if isinstance(part, torch.nn.Module))


def pushed(hub, repo_id="ada/hearts", kind="model"):
    return hub.files(kind, repo_id)
