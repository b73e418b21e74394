"""Refusals: a status, and a reason that a person can act on (RFC 9457, ``application/problem+json``)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """What is wrong with a request, or keeps the service from answering it.

    Args:
        status: of the answer, 400 to 599.
        reason: one sentence: what was found, and what would do.
        retry_after: seconds after which it is worth asking again.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse(self.document(), self.status, headers, MEDIA_TYPE)

    def document(self) -> dict[str, Any]:
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.reason}


def problem_schema() -> dict[str, Any]:
    """The JSON Schema of a refusal."""
    properties = {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "One sentence: what was found, and what would do."},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
