"""Repositories of the Hugging Face Hub: names, downloads, and errors in one sentence."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

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

from hcm_hf.utils.errors import InputError


_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(.+))?")
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")  # and that of HF_ENDPOINT
_VIEWS = ("tree", "blob", "raw", "resolve", "commit")  # in the address of a page, before the revision
_PLACE = re.compile(r"([^/@]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/.*)?")
_TOKEN = re.compile(r"[!-~]+")  # what a request's header can hold: ASCII without blanks
# Errors of the Hub's client; other libraries may wrap them.
HUB_ERRORS = (HTTPError, EntryNotFoundError, OfflineModeIsEnabled, LocalTokenNotFoundError, HFValidationError)
LOGIN = "log in with `hf auth login`"


def parse_repository(name: str | Path, revision: str | None = None) -> tuple[str, str | None] | None:
    """Return the id and the revision of the repository that a name stands for.

    Args:
        name: `user/name`, `user/name@revision`, the address of a page of the Hub, or an `hf://` path.
        revision: branch, tag or commit; takes precedence over one in `name`.

    Returns:
        None if `name` is an existing folder, or cannot be a repository.

    Raises:
        InputError: if `name` is an address with a password in it.
    """
    found = None if os.path.exists(name) else read_name(str(name))
    return found and (found[1], revision or found[2])


def read_name(name: str) -> tuple[str | None, str, str | None] | None:
    """Read kind (if given), id and revision in a name, whatever folders exist."""
    name, kind, revision = name.strip(), None, None
    try:
        address = urlsplit(f"https://{name}" if name.startswith(tuple(f"{host}/" for host in _HOSTS)) else name)
    except ValueError:  # brackets without an end
        return None
    if address.scheme in ("http", "https", "hf"):
        if "@" in address.netloc:
            raise InputError(f"An address at {address.hostname} has a password in it; give user/name, and {LOGIN}.")
        parts = [part for part in address.path.split("/") if part]
        if address.scheme == "hf":
            parts.insert(0, address.netloc)
        elif address.hostname not in (*_HOSTS, urlsplit(constants.ENDPOINT).hostname):
            return None
        if parts[:1] and parts[0] in constants.REPO_TYPES_MAPPING:
            kind = constants.REPO_TYPES_MAPPING[parts.pop(0)]
        if address.scheme != "hf" and parts[3:] and parts[2] in _VIEWS:
            parts[1:4] = [f"{parts[1]}@{parts[3]}"]
        place = _PLACE.fullmatch("/".join(parts))
        name, revision = (place[1], place[2] and unquote(place[2])) if place else ("", None)
    match = _NAME.fullmatch(name.rstrip("/"))
    return match and (kind, match[1], revision or match[2])


def checked_token(token: str | bool | None) -> str | bool | None:
    """Return a token that the Hub's client can send; messages never quote it.

    Args:
        token: the user's token; blanks and line ends around it are removed. With None or True, the token of
            `hf auth login` is checked.

    Raises:
        InputError: if it cannot be a token.
    """
    if token is False:
        return False
    given = isinstance(token, str)
    found = token.strip() if isinstance(token, str) else get_token()
    if found is not None and not _TOKEN.fullmatch(found):
        whose = "The token that was given" if given else "The token of `hf auth login` or HF_TOKEN"
        fault = "holds a character that no token has" if found else "is empty"
        raise InputError(f"{whose} {fault}; copy it again from {constants.ENDPOINT}/settings/tokens, or {LOGIN}.")
    return found if given else token


def download(
    repo_id: str,
    patterns: Sequence[str],
    repo_type: str = "model",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Download files of a repository into the cache of the Hub's client, unless they are there.

    Args:
        repo_id: `user/name`.
        patterns: patterns of the files' paths, as in a shell.
        repo_type: "model", "dataset" or "space".
        revision: branch, tag or commit; by default `main`.
        token: for a private repository; by default that of `hf auth login`.
        cache_dir: by default the client's.
        local_files_only: whether to look into the cache alone.

    Returns:
        The folder of the repository at that revision.

    Raises:
        InputError: if the download fails; says why and what to do.
    """
    token = checked_token(token)
    try:
        folder = snapshot_download(
            repo_id,
            repo_type=repo_type,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=list(patterns),
        )
    except (*HUB_ERRORS, OSError, ValueError, RuntimeError, TypeError) as error:  # TypeError: from an odd card
        reason = explain(error, repo_id, repo_type, revision)  # for users who meant a folder
        raise InputError(f"There is no folder {repo_id} here; Hub: {reason}") from None
    return Path(folder)


@contextmanager
def explained(repo_id: str, repo_type: str = "model", revision: str | None = None) -> Iterator[None]:
    """Turn errors of the Hub's client about a repository into an `InputError` that says what to do."""
    try:
        yield
    except HUB_ERRORS as error:
        sentence = explain(error, repo_id, repo_type, revision)
        raise InputError(sentence[0].upper() + sentence[1:]) from None  # a page of HTTP says less


def explain(error: BaseException, repo_id: str, repo_type: str = "model", revision: str | None = None) -> str:
    """Return one sentence, without its capital, about one of `HUB_ERRORS` and what to do."""
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the Hub answered, so its answer is the reason
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return f"the {repo_type} {repo_id} is gated; ask for access on {page_of(repo_id, repo_type)}, then {LOGIN}."
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


def _said(error: BaseException) -> str:
    """The Hub's own reason if it gave one."""
    server_message = error.server_message if isinstance(error, HfHubHTTPError) else None
    return (server_message or first_line(error)).strip().partition("\n")[0].rstrip(".")


def page_of(repo_id: str, repo_type: str) -> str:
    """Return the address of a repository."""
    return f"{constants.ENDPOINT}/{constants.REPO_TYPES_URL_PREFIXES.get(repo_type, '')}{repo_id}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without the request ids of the Hub's client."""
    line = next(iter(str(error).strip().splitlines()), "").partition("(Request ID")[0]
    return line.strip().rstrip(".") or type(error).__name__
