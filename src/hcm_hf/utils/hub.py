"""Repositories of the Hugging Face Hub: their names, how to bring one here, and what goes wrong in one sentence."""

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
_VIEWS = ("tree", "blob", "raw", "resolve", "commit")  # of a repository's page; a revision follows, and a file
_PLACE = re.compile(r"([^/@]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/.*)?")
_TOKEN = re.compile(r"[!-~]+")  # what can stand in a request's header: ASCII without blanks
# What a library may hide behind an error of its own, or raise itself.
HUB_ERRORS = (HTTPError, EntryNotFoundError, OfflineModeIsEnabled, LocalTokenNotFoundError, HFValidationError)
LOGIN = "log in with `hf auth login`"


def parse_repository(name: str | Path, revision: str | None = None) -> tuple[str, str | None] | None:
    """The repository's id and revision that a name stands for.

    Args:
        name: what the user named: `user/name`, `user/name@revision`, the address of a page of the Hub, or `hf://` and
            what `huggingface_hub` takes after it.
        revision: a branch, tag or commit that goes before one in `name`.

    Returns:
        None where `name` is a folder that exists, or cannot be a repository's.

    Raises:
        InputError: if `name` is an address with a password in it.
    """
    found = None if os.path.exists(name) else read_name(str(name))
    return found and (found[1], revision or found[2])


def read_name(name: str) -> tuple[str | None, str, str | None] | None:
    """What `parse_repository` reads in a name, whatever folders there are: kind where it says one, id and revision."""
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
    """A token as the Hub's client can send it; nothing that is said here quotes one.

    Args:
        token: as a user gives it; blanks and line ends around it, which a file leaves there, are taken off. With None
            or True it is that of `hf auth login`, which is looked at alone.

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
    token = checked_token(token)
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
    """The Hub's own reason where it gave one."""
    reason = error.server_message if isinstance(error, HfHubHTTPError) else None
    return (reason or first_line(error)).strip().partition("\n")[0].rstrip(".")


def page_of(repo_id: str, repo_type: str) -> str:
    """A repository's address."""
    return f"{constants.ENDPOINT}/{constants.REPO_TYPES_URL_PREFIXES.get(repo_type, '')}{repo_id}"


def first_line(error: BaseException) -> str:
    """What an error says, without its trail: the client's messages go on with ids of requests."""
    line = next(iter(str(error).strip().splitlines()), "").partition("(Request ID")[0]
    return line.strip().rstrip(".") or type(error).__name__
