"""Start the service in this process, until Ctrl-C."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path

from facemtl.errors import DependencyError, ModelError, SourceError
from facemtl.predictor import Predictor
from facemtl.serve.limits import Limits
from facemtl.weights import find_model

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def onnx_file(model: str | Path) -> Path | None:
    """The ``.onnx`` file of a model, for the browser; None where there is none."""
    try:
        path = find_model(model)
    except ModelError:
        return None
    return path if path.suffix == ".onnx" else None


def serve(
    predict: Predictor,
    model_file: Path | None,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    ready: Callable[[str], object] = lambda address: None,
) -> None:
    """Answer requests until Ctrl-C.

    Args:
        predict: as in :func:`facemtl.serve.app.create_app`, and so ``model_file`` and ``limits``.
        host: address to listen at; anything but the local ones lets other machines in, and there is no password.
        port: 0 takes a free one.
        ready: is called with the page's address once it can be opened.

    Raises:
        DependencyError: the extra ``serve`` is not installed.
        SourceError: the port is taken, or the address is not this machine's.
    """
    try:
        import python_multipart  # noqa: F401  starlette says no more than an AssertionError without it
        import uvicorn

        from facemtl.serve.app import LOCAL_HOSTS, create_app
    except ImportError as error:
        raise DependencyError(f"the service needs pip install 'facemtl[serve]': {error}") from None
    try:
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    except OSError as error:
        raise SourceError(f"cannot listen at {host} port {port}: {error.strerror or error}") from None
    local = host in LOOPBACK
    app = create_app(predict, limits, model_file, LOCAL_HOSTS if local else ["*"])
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
        limit_concurrency=256,
        h11_max_incomplete_event_size=64 * 2**10,
        http="h11",
    )
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a warning for every body that is none
    address = f"[{host}]" if ":" in host else host
    with listening:
        ready(f"http://{address}:{listening.getsockname()[1]}/")
        uvicorn.Server(config).run(sockets=[listening])
