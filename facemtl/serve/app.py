"""The service: a page, the networks that it runs by itself, and ``/predict`` for programs.

A request names no path and no address that is opened or fetched. What it may cost is bounded before it is spent
(:class:`facemtl.serve.limits.Limits`), and every refusal says why. Pages of other origins are refused: a server on
127.0.0.1 can be reached by any page that its user opens.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facemtl import __version__
from facemtl._image_header import FormatError, HeaderError, read_header
from facemtl.errors import ImageError
from facemtl.formats import ImageFaces, to_plain
from facemtl.image import read_image
from facemtl.predictor import Predictor
from facemtl.serve.assets import Assets
from facemtl.serve.describe import browser_files, describe
from facemtl.serve.jobs import Jobs
from facemtl.serve.limits import Limits
from facemtl.serve.openapi import openapi_document
from facemtl.serve.problems import Problem
from facemtl.serve.upload import Upload, drain, read_upload

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")

# wasm-unsafe-eval compiles WebAssembly and no JavaScript. Nothing is loaded from elsewhere, and none may frame it.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_DRAIN_SECONDS = 2.0

_log = logging.getLogger(__name__)


def create_app(
    predict: Predictor,
    limits: Limits | None = None,
    model_file: Path | None = None,
    hosts: Sequence[str] = LOCAL_HOSTS,
) -> Starlette:
    """The service as an ASGI application.

    Args:
        predict: answers ``/predict``; shared by all workers.
        limits: what a request may cost; the defaults of :class:`Limits` if None.
        model_file: the ``.onnx`` file of the same model, for the page to run it in the browser; without it the page
            works through ``/predict``.
        hosts: names under which it may be addressed, ``*`` for any. A page elsewhere can point a name of its own at
            127.0.0.1, and would otherwise be of the same origin.

    Raises:
        ModelError: the detector is not there.
    """
    service = _Service(predict, limits or Limits(), model_file)
    return Starlette(
        routes=[
            Route("/", service.page),
            Route("/static/{name:path}", service.static),
            Route("/models/{name}", service.network),
            Route("/model.json", service.model),
            Route("/openapi.json", service.openapi),
            Route("/health", service.health),
            Route("/predict", service.predict, methods=["POST"]),
        ],
        middleware=[Middleware(_SecurityHeaders), Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={Problem: _refuse, HTTPException: _refuse_http, Exception: _fault},
        lifespan=service.lifespan,
    )


class _Service:
    """What the addresses answer; one instance an application."""

    def __init__(self, predict: Predictor, limits: Limits, model_file: Path | None) -> None:
        self._predict, self._limits = predict, limits
        files, reason = browser_files(predict, model_file)
        self._pages = Assets.of_page()
        self._networks = Assets({f"{name}.onnx": path for name, path in files.items()})
        self._model = describe(predict, limits, files, reason)
        self._openapi = openapi_document(limits)
        self._jobs: Jobs | None = None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._jobs = Jobs(self._limits.workers, self._limits.queue)
        try:
            yield
        finally:
            self._jobs.close()

    async def page(self, request: Request) -> Response:
        return self._pages.answer(request, "index.html")

    async def static(self, request: Request) -> Response:
        return self._pages.answer(request, request.path_params["name"])

    async def network(self, request: Request) -> Response:
        return self._networks.answer(request, request.path_params["name"])

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._model)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(self._openapi)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": self._predict.spec.name, "version": __version__})

    async def predict(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except Problem as problem:
            # The rest of the body is taken and thrown away: many clients read no answer before they have sent all.
            try:
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await drain(request, self._limits)
            except TimeoutError:
                pass
            raise problem

    async def _answer(self, request: Request) -> Response:
        _check_origin(request)
        limits, late = self._limits, asyncio.get_running_loop().time() + self._limits.seconds
        with self._jobs.admitted():
            try:
                async with asyncio.timeout_at(late):
                    upload = await read_upload(request, limits)
            except TimeoutError:
                raise Problem(408, f"the body did not arrive within {limits.seconds:g} seconds") from None
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it
            try:
                async with asyncio.timeout_at(late):
                    body, seconds = await self._jobs.run(lambda: self._work(upload))
            except TimeoutError:
                reason = f"no answer within {limits.seconds:g} seconds; try again, or a smaller picture"
                raise Problem(503, reason, retry_after=1) from None
        headers = {"Cache-Control": "no-store", "Server-Timing": f"predict;dur={1000 * seconds:.1f}"}
        return Response(body, headers=headers, media_type="application/json")

    def _work(self, upload: Upload) -> tuple[bytes, float]:
        """In a thread: the answer's JSON, and the seconds that it took."""
        start = time.perf_counter()
        image = _decode(upload.data, self._limits)
        height, width = image.shape[:2]
        faces = self._predict(image, boxes=upload.boxes)
        document = to_plain([ImageFaces(upload.name, width, height, faces)])
        return json.dumps(document, allow_nan=False).encode(), time.perf_counter() - start


def _decode(data: bytes, limits: Limits):
    try:
        header = read_header(data)
    except FormatError as error:
        raise Problem(415, f"the picture {error}") from None
    except HeaderError as error:
        raise Problem(422, f"the picture {error}") from None
    if header.width * header.height > limits.max_pixels:
        size = f"{header.width} x {header.height} pixels"
        raise Problem(413, f"the picture has {size}, over the limit of {limits.max_pixels} in all; make it smaller")
    try:
        return read_image(data)
    except ImageError as error:
        raise Problem(422, str(error)) from None


def _check_origin(request: Request) -> None:
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Problem(403, "pages of another origin may not use this service")


async def _refuse(request: Request, problem: Problem) -> Response:
    return problem.response()


async def _refuse_http(request: Request, error: HTTPException) -> Response:
    response = Problem(error.status_code, error.detail).response()
    response.headers.update(error.headers or {})
    return response


async def _fault(request: Request, error: Exception) -> Response:
    _log.error("%s: %s", type(error).__name__, error)
    return Problem(500, "the service failed; its log says more").response()


class _SecurityHeaders:
    """Puts the same headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
