"""The trained models that come with this package: the folder `pretrained/`, where a name without a slash is found."""

import os
from pathlib import Path

from hcm_hf.utils.errors import InputError
from hcm_hf.version import SOURCE_URL


VARIABLE = "HCM_PRETRAINED"
_OF_CHECKOUT = Path(__file__).resolve().parents[3] / "pretrained"


def shipped_folder() -> Path | None:
    """The folder of trained models: that of the variable `HCM_PRETRAINED`, else the checkout's; None for neither.

    Raises:
        InputError: if the variable names no folder.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_dir():
            raise InputError(f"{VARIABLE} is {named}, and there is no such folder; name the folder pretrained/.")
        return Path(named)
    return _OF_CHECKOUT if _OF_CHECKOUT.is_dir() else None


def shipped_names() -> list[str]:
    """The names of the models that are there, sorted."""
    folder = shipped_folder()
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder else []


def find_shipped(name: str | Path, argument: str) -> Path:
    """The folder of a trained model, or `name` itself if it is one.

    Args:
        name: a folder, or the name of a trained model such as "hcm-dcgan-64".
        argument: what the user calls it.

    Raises:
        InputError: if there is neither; says what there is, or where to get it.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).name != str(name):
        raise InputError(f"{argument} {name} does not exist; name a folder, or user/name on the Hub.")
    folder = shipped_folder()
    if folder is not None and (folder / name).is_dir():
        return folder / name
    if folder is not None:
        raise InputError(
            f"{argument} {name} does not exist here, and is none of the trained models: {', '.join(shipped_names())}; "
            "name one of these, a folder, or user/name on the Hub."
        )
    raise InputError(
        f"{argument} {name} does not exist here, and the trained models are not here either: copy the folder "
        f"pretrained/ of {SOURCE_URL} and name it in the variable {VARIABLE}; or name a folder, or user/name on the "
        "Hub."
    )
