"""What the tests of pushes share."""

from pathlib import Path


ROOT = Path(__file__).parents[1]


def pushed(hub, repo_id="ada/hearts", kind="model"):
    return hub.files(kind, repo_id)
