"""Repositories of the Hugging Face Hub: their names, how to bring one here, and what goes wrong in one sentence."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_token, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hcm_hf.errors import InputError


_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(.+))?")
# What a library may hide behind an error of its own, or raise itself.
HUB_ERRORS = (HTTPError, EntryNotFoundError, OfflineModeIsEnabled, LocalTokenNotFoundError, HFValidationError)
LOGIN = "log in with `hf auth login`"


def parse_repository(name: str | Path, revision: str | None = None) -> tuple[str, str | None] | None:
    """The repository's id and revision that `user/name` or `user/name@revision` stands for.

    Args:
        name: what the user named.
        revision: a branch, tag or commit that goes before one in `name`.

    Returns:
        None where `name` is a folder that exists, or cannot be a repository's.
    """
    match = None if Path(name).exists() else _NAME.fullmatch(str(name))
    return match and (match[1], revision or match[2])


def download(
    repo_id: str,
    patterns: Sequence[str],
    repo_type: str = "model",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Bring files of a repository into the cache of the Hub's client; what is there already is not fetched again.

    Args:
        repo_id: `user/name`.
        patterns: of the files' paths, as in a shell.
        repo_type: "model", "dataset" or "space".
        revision: branch, tag or commit; by default `main`.
        token: for a private repository; by default that of `hf auth login`.
        cache_dir: by default the client's.

    Returns:
        The folder of the repository as of that revision.

    Raises:
        InputError: if that cannot be had; says why and what to do.
    """
    try:
        folder = snapshot_download(
            repo_id,
            repo_type=repo_type,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            allow_patterns=list(patterns),
        )
    except (*HUB_ERRORS, OSError, ValueError, RuntimeError, TypeError) as error:  # TypeError: of a card that is odd
        reason = explain(error, repo_id, repo_type, revision)  # whoever meant a folder reads that first
        raise InputError(f"There is no folder {repo_id} here; Hub: {reason}") from None
    return Path(folder)


@contextmanager
def explained(repo_id: str, repo_type: str = "model", revision: str | None = None) -> Iterator[None]:
    """Turn what the Hub's client raises about a repository into an `InputError`: the cause, and what to do."""
    try:
        yield
    except HUB_ERRORS as error:
        sentence = explain(error, repo_id, repo_type, revision)
        raise InputError(sentence[0].upper() + sentence[1:]) from None  # a page of HTTP says less


def explain(error: BaseException, repo_id: str, repo_type: str = "model", revision: str | None = None) -> str:
    """One sentence, without its capital, about what the Hub's client raised, with the repository and what to do.

    Args:
        error: one of `HUB_ERRORS`.
        repo_id: the repository.
        repo_type: "model", "dataset" or "space".
        revision: as it was asked for.
    """
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the Hub answered; that nothing is cached either is no news
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return f"the {repo_type} {repo_id} is gated; ask for access on {_page(repo_id, repo_type)}, then {LOGIN}."
    if isinstance(error, RepositoryNotFoundError):
        return f"no {repo_type} {repo_id} is there that you may see; check the name, and if it is private, {LOGIN}."
    if isinstance(error, RevisionNotFoundError):
        return f"the {repo_type} {repo_id} has no revision '{revision}'; check the revision."
    if isinstance(error, LocalEntryNotFoundError):
        reason = "offline mode" if constants.HF_HUB_OFFLINE else first_line(error.__cause__ or error)
        return (
            f"the {repo_type} {repo_id} is not in the cache, and the Hub cannot be reached ({reason}); download it "
            "once while online."
        )
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo_type} {repo_id} cannot be reached in offline mode; unset HF_HUB_OFFLINE."
    if isinstance(error, EntryNotFoundError):
        return f"the {repo_type} {repo_id} lacks a file ({first_line(error)}); check the name and the revision."
    if isinstance(error, LocalTokenNotFoundError):
        return f"a token is needed for {repo_id}; {LOGIN}."
    if isinstance(error, HFValidationError):
        return f"'{repo_id}' cannot be a repository's name ({first_line(error)}); give user/name."
    if status == 401 and get_token() is None:
        return f"the Hub wants to know who asks for {repo_id}; {LOGIN}."
    if status == 401:
        return f"the Hub does not accept the token with which {repo_id} was asked for; {LOGIN}, or unset HF_TOKEN."
    if status == 403:
        return f"the Hub does not let this token at {repo_id} ({_said(error)}); {LOGIN} with one that has the right."
    if status == 412:
        return f"somebody else pushed to {repo_id} at the same moment; push again."
    if status is not None:
        advice = "; try again later" if status == 429 or status >= 500 else ""
        return f"the Hub answered {status} about {repo_id} ({_said(error)}){advice}."
    if isinstance(error, HTTPError):
        return f"the Hub cannot be reached about {repo_id} ({first_line(error)}); check the network and try again."
    return f"the {repo_type} {repo_id} cannot be had ({first_line(error.__cause__ or error)})."


def _said(error: HfHubHTTPError) -> str:
    """The Hub's own reason where it gave one."""
    return (error.server_message or first_line(error)).strip().partition("\n")[0].rstrip(".")


def _page(repo_id: str, repo_type: str) -> str:
    return f"{constants.ENDPOINT}/{constants.REPO_TYPES_URL_PREFIXES.get(repo_type, '')}{repo_id}"


def first_line(error: BaseException) -> str:
    """What an error says, without its trail: the client's messages go on with ids of requests."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).partition(" (Request ID")[0].rstrip(".")
