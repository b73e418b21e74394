"""The files that are handed out: listed when the service starts, so that no path of a request is ever opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from facemtl.serve.problems import Problem
from facemtl.weights import sha256

STATIC = Path(__file__).with_name("_static")
# Python's own table follows the machine's, where .js may be plain text, which no browser runs.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}


class Assets:
    """Some files under names of their own.

    Args:
        files: name in the address -> file; its suffix must be a known one.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = {name: (path, _TYPES[path.suffix], f'"{sha256(path)[:32]}"') for name, path in files.items()}

    @classmethod
    def of_page(cls) -> Assets:
        """All files of the page that a browser may load."""
        files = [path for path in STATIC.rglob("*") if path.suffix in _TYPES]
        return cls({path.relative_to(STATIC).as_posix(): path for path in files})

    def answer(self, request: Request, name: str) -> Response:
        """The file of a name; or that the browser has it already.

        Raises:
            Problem: 404.
        """
        if name not in self._files:
            raise Problem(404, f"there is no file {name[:100]!r}")
        path, media_type, tag = self._files[name]
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return FileResponse(path, headers=headers, media_type=media_type)
