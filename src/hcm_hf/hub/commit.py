"""Push to the Hub in one commit or none; keep edits of a card, and report what is there after a failure."""

import fnmatch
import hashlib
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, constants
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import get_session, hf_raise_for_status

from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import HUB_ERRORS, explain, explained, first_line, page_of


CARD = constants.REPOCARD_NAME
# A card's last line; its hash shows whether the card was edited.
_SIGNATURE = "\n<!-- Written by hcm_hf, {}: what you change above stays when it is pushed again. -->\n"
_SIGNED = re.compile(re.escape(_SIGNATURE).replace(r"\{\}", "([0-9a-f]{16})"))
_SPACE_TEMPLATE = "huggingface.co/docs/hub/spaces-config-reference"  # in the card of a new Space
_NUMBERS = ("metrics", "model-index")  # fields that belong to one evaluation
_FAULTS = (*HUB_ERRORS, ValueError, RuntimeError, OSError)  # of an upload; the client also raises built-in errors


@dataclass(frozen=True)
class Target:
    """The destination of a push."""

    repo_id: str
    repo_type: str
    private: bool | None = None
    revision: str | None = None
    create_pr: bool = False
    token: str | bool | None = field(default=None, repr=False)

    @property
    def api(self) -> HfApi:
        """The Hub's client with the token."""
        return HfApi(token=self.token)

    @property
    def page(self) -> str:
        """The address of the repository."""
        return page_of(self.repo_id, self.repo_type)


@dataclass(frozen=True)
class _State:
    """A repository: commit, empty if there is none, id of each file, and whether there is such a branch."""

    sha: str
    ids: Mapping[str, str]
    on_branch: bool = True

    def holds(self, files: Mapping[str, bytes]) -> bool:
        return all(self.ids.get(path) in _ids(content) for path, content in files.items())

    def stale(self, files: Collection[str], own: Sequence[str]) -> list[str]:
        """Return what fits the patterns `own` and is not among the files."""
        return [path for path in self.ids if path not in files and any(fnmatch.fnmatchcase(path, one) for one in own)]


def push(
    target: Target,
    files: Mapping[str, bytes],
    message: str,
    own: Sequence[str],
    slow: Mapping[str, Callable[[], bytes]] | None = None,
) -> str:
    """Push files in one commit, which removes other files that fit the patterns `own`; no commit if nothing is new.

    A card that was edited on the Hub keeps its text. The card is checked before a repository is created.

    Args:
        target: the destination.
        files: content by path in the repository; README.md is the card.
        message: of the commit.
        own: patterns of files that may be removed.
        slow: functions that make further files; called only if something is new.

    Returns:
        The address of the commit, or of the latest one if nothing is new.

    Raises:
        InputError: if the card is rejected or the push fails; says what is on the Hub now.
    """
    slow = slow or {}
    with explained(target.repo_id, target.repo_type, target.revision):
        before = _read_state(target)
        files = dict(files)
        files[CARD], edited = _card(target, before, files[CARD].decode())
    stale = before.stale({*files, *slow}, own)
    if before.on_branch and not stale and before.holds(files) and set(slow) <= set(before.ids):
        return f"{target.page}/commit/{before.sha}"
    if edited:
        warnings.warn(f"{CARD} of {target.repo_id} was edited there: {edited}", stacklevel=3)
    if not before.holds({CARD: files[CARD]}):
        _check_card(target, files[CARD].decode())
    files |= {path: make() for path, make in slow.items()}
    new = {path: content for path, content in files.items() if not before.holds({path: content})}
    try:
        return _commit(target, before, new, stale, message)
    except _FAULTS as error:
        return _arrived(target, before, files, stale, _reason(error, target))


def _read_state(target: Target) -> _State:
    where: dict[str, Any] = {"repo_type": target.repo_type, "files_metadata": True}
    try:
        return _state(target.api.repo_info(target.repo_id, revision=target.revision, **where))
    except RepositoryNotFoundError:
        return _State("", {}, on_branch=False)
    except RevisionNotFoundError:
        if target.create_pr or (target.revision or "").startswith("refs/"):
            raise
        return _state(target.api.repo_info(target.repo_id, **where), on_branch=False)


def _state(info: Any, on_branch: bool = True) -> _State:
    ids = {one.rfilename: one.lfs.sha256 if one.lfs else one.blob_id for one in info.siblings}
    return _State(info.sha, ids, on_branch)


def _ids(content: bytes) -> tuple[str, str]:
    """Return the ids that the Hub may give a file: git's, and that of large files."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), hashlib.sha256(content).hexdigest()


def _commit(target: Target, before: _State, files: Mapping[str, bytes], stale: list[str], message: str) -> str:
    api = target.api
    parent: str | None = before.sha
    where: dict[str, Any] = {"repo_type": target.repo_type}
    if not parent:
        sdk: dict[str, Any] = {"space_sdk": "gradio"} if target.repo_type == "space" else {}
        api.create_repo(target.repo_id, private=target.private, **sdk, **where)
        parent = api.repo_info(target.repo_id, **where).sha
    if target.revision is not None and not before.on_branch and not target.create_pr:
        api.create_branch(target.repo_id, branch=target.revision, **where)
    commit = api.create_commit(
        target.repo_id,
        [
            *(CommitOperationAdd(path, content) for path, content in sorted(files.items())),
            *map(CommitOperationDelete, stale),
        ],
        commit_message=message,
        revision=target.revision,
        create_pr=target.create_pr,
        parent_commit=parent,  # so that a push of somebody else at the same time is not mixed with this one
        **where,
    )
    return commit.pr_url or commit.commit_url


def _arrived(target: Target, before: _State, files: Mapping[str, bytes], stale: list[str], reason: str) -> str:
    """Return the address of a commit whose answer was lost, or raise an `InputError` that says what is there."""
    try:
        now, number = _read_state(target), _pull_request(target, files) if target.create_pr else None
    except _FAULTS:
        raise InputError(
            f"{reason} Whether it has arrived cannot be seen; push again: what is there already is not pushed twice."
        ) from None
    if number is not None:
        return f"{target.page}/discussions/{number}"
    moved = now.sha not in ("", before.sha)
    if moved and not target.create_pr and now.holds(files) and not set(stale) & set(now.ids):
        return f"{target.page}/commit/{now.sha}"
    if moved and not before.sha:
        state = f"The {target.repo_type} was made, and nothing is in it yet: push again, or delete it on its page."
    elif moved:
        state = "Somebody else has pushed there meanwhile; nothing of this push is there, push again."
    elif now.on_branch and not before.on_branch:
        state = f"The branch {target.revision} was made; nothing else was changed there, push again."
    else:
        state = "Nothing was changed there; push again."
    raise InputError(f"{reason} {state}") from None


def _pull_request(target: Target, files: Mapping[str, bytes]) -> int | None:
    """Return the number of the latest pull request, if it holds the files."""
    refs = target.api.list_repo_refs(target.repo_id, repo_type=target.repo_type, include_pull_requests=True)
    numbers = [int(one.ref.rpartition("/")[2]) for one in refs.pull_requests or []]
    if not numbers:
        return None
    info = target.api.repo_info(
        target.repo_id, revision=f"refs/pr/{max(numbers)}", repo_type=target.repo_type, files_metadata=True
    )
    return max(numbers) if _state(info).holds(files) else None


def _reason(error: BaseException, target: Target) -> str:
    """Return one sentence about why a push failed."""
    if isinstance(error, HUB_ERRORS):
        sentence = explain(error, target.repo_id, target.repo_type, target.revision)
        return sentence[0].upper() + sentence[1:]
    said = first_line(error.__cause__ or error)
    if "xet" in str(error).lower():
        return f"The push to {target.repo_id} failed: this Hub has no Xet storage ({said}); set HF_HUB_DISABLE_XET=1."
    return f"The push to {target.repo_id} failed ({said})."


def _card(target: Target, before: _State, text: str) -> tuple[bytes, str]:
    """Return the card to push, and a note on edits: an edited card keeps its text, others are signed."""
    signed = sign_card(text).encode()
    if CARD not in before.ids or before.holds({CARD: signed}):
        return signed, ""
    path = target.api.hf_hub_download(target.repo_id, CARD, repo_type=target.repo_type, revision=before.sha)
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        there = file.read()
    if is_signed(there) or (target.repo_type == "space" and _SPACE_TEMPLATE in there):
        return signed, ""
    try:
        merged, replaced = merge_cards(there, text)
    except (ValueError, yaml.YAMLError):
        return there.encode(), "it is kept as it is, since its fields cannot be read."
    fields = f"its fields {', '.join(replaced)} are written anew" if replaced else ""
    if merged is None:
        return signed, fields
    fields = fields and f", {fields}"
    note = f"its text is kept{fields}. To have all of it written anew, delete it there and push again."
    return merged.encode(), note


def sign_card(text: str) -> str:
    """Add the last line that marks a card as written by this package."""
    return text.rstrip() + "\n" + _SIGNATURE.format(hashlib.sha256(text.rstrip().encode()).hexdigest()[:16])


def is_signed(card: str) -> bool:
    """Whether a card is unchanged since this package wrote it."""
    card = card.replace("\r\n", "\n")
    found = _SIGNED.search(card)
    return found is not None and sign_card(card[: found.start()]) == card


def merge_cards(there: str, text: str) -> tuple[str | None, list[str]]:
    """Put the fields of a new card into an edited one.

    Returns:
        The card, None if it has no text to keep; and the fields that get another value. Added tags stay.
    """
    old, new = RepoCard(there, ignore_metadata_errors=True), RepoCard(text)
    before, fields = old.data.to_dict(), new.data.to_dict()
    replaced = [name for name, value in fields.items() if name in before and before[name] != value]
    for name in _NUMBERS:
        if name in before and name not in fields:
            del before[name]
            replaced.append(name)
    if not old.text.strip():
        return None, replaced
    if isinstance(before.get("tags"), list):
        fields["tags"] = list(dict.fromkeys([*fields.get("tags", []), *before["tags"]]))
        replaced = [name for name in replaced if name != "tags"]
    data = type(old.data)(**before | fields)
    return f"---\n{data.to_yaml()}\n---\n{_SIGNED.sub('', old.text.replace(chr(13), ''))}", replaced


def _check_card(target: Target, text: str) -> None:
    """Ask the Hub whether the card is valid. Before 2.4 `RepoCard.validate` asks huggingface.co, whatever the Hub."""
    with explained(target.repo_id, target.repo_type):
        asked = {"repoType": target.repo_type, "content": text}
        response = get_session().post(f"{constants.ENDPOINT}/api/validate-yaml", json=asked)
        if response.status_code == HTTPStatus.BAD_REQUEST:
            try:
                reasons = [one["message"] for one in response.json()["errors"]]
            except (ValueError, KeyError, TypeError):
                reasons = [response.text.partition("\n")[0]]
            reason = "; ".join(reasons)
            raise InputError(f"The Hub rejects the card of {target.repo_id} ({reason}); nothing was pushed.")
        hf_raise_for_status(response)
