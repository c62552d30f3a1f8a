"""Requests and answers of the small Hub of the tests."""

import json
from dataclasses import dataclass
from typing import Any

from hub_repositories import Account, Refusal
from starlette.requests import Request
from starlette.responses import Response


@dataclass
class Call:
    """A request, by somebody or by nobody."""

    request: Request
    body: bytes
    account: Account | None

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def asks(self, option: str) -> bool:
        return self.request.query_params.get(option, "").lower() in ("1", "true")

    def writer(self, owner: str | None = None) -> Account:
        """Who calls, if he may write at all, and under the name of `owner`."""
        if self.account is None:
            raise Refusal(401, "Invalid username or password.")
        if not self.account.can_write or owner not in (None, self.account.name):
            raise Refusal(403, f"This token has no right to write under {owner or self.account.name}")
        return self.account


class CutShort(Response):
    """Promises its whole body, sends the first `kept` bytes and stops, whereupon uvicorn closes the connection."""

    def __init__(self, content: bytes, status: int, headers: dict, kept: int):
        super().__init__(content, status, headers)
        self.kept = kept

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: self.kept], "more_body": True})


def reply(value: Any, status: int = 200, headers: dict | None = None) -> Response:
    return Response(json.dumps(value, default=str), status, headers, media_type="application/json")
