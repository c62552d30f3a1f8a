"""What the tests of reproductions share."""

import json
import shutil
from pathlib import Path


# Of `reproduce`: little of everything.
QUICK = {"num_images": 40, "num_epochs": 2, "num_inference_steps": 3}


def begin(work_dir: Path, reproduced: Path) -> Path:
    """A work folder with the dataset and the encoder of another, and nothing else."""
    for name in ("dataset", "runs/encoder"):
        shutil.copytree(reproduced / name, work_dir / name)
    return work_dir


def interrupt(*_, **__):
    raise KeyboardInterrupt


def read(path: Path) -> dict:
    return json.loads(path.read_text())
