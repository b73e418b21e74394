"""The body of a request, read within its caps: one picture as ``multipart/form-data``, and boxes if there are any."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from facemtl.errors import BoxError
from facemtl.geometry import check_boxes
from facemtl.serve.limits import Limits
from facemtl.serve.problems import Problem

IMAGE, BOXES = "image", "boxes"  # the fields of the form
_FORM = "multipart/form-data"
_MOST_NAME = 200  # characters of a file's name that are repeated in the answer
_TEXT_BYTES = 64 * 2**10  # of a field that is no file


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """What was sent.

    Attributes:
        name: what the sender calls the picture, without folders; never used to open anything.
        data: the picture's file.
        boxes: (N, 4) float64 ``x1 y1 x2 y2`` in image pixels, or None: look for faces.
    """

    name: str
    data: bytes
    boxes: np.ndarray | None


async def read_upload(request: Request, limits: Limits) -> Upload:
    """Read the form of a request.

    Raises:
        Problem: 413 over the cap; 415 another type of body; 422 no form that can be read, or not the fields of ours.
    """
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != _FORM:
        raise Problem(415, f"the body must be {_FORM} with a field {IMAGE!r}; it is {declared or 'of no type'}")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_bytes:
        raise _too_large(limits)
    parts = _capped(request, limits)
    parser = MultiPartParser(request.headers, parts, max_files=1, max_fields=1, max_part_size=_TEXT_BYTES)
    parser.spool_max_size = limits.max_bytes + 1  # no picture is written to a disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(
            422, f"the body is no {_FORM} of one {IMAGE!r} and one {BOXES!r} at most: {error.message}"
        ) from None
    try:
        return await _fields(form, limits)
    finally:
        await form.close()


async def _fields(form: FormData, limits: Limits) -> Upload:
    unknown = set(form) - {IMAGE, BOXES}
    if unknown:
        raise Problem(422, f"unknown field {sorted(unknown)[0][:50]!r}; known: {IMAGE}, {BOXES}")
    picture, text = form.get(IMAGE), form.get(BOXES)
    if not isinstance(picture, UploadFile):
        raise Problem(422, f"the field {IMAGE!r} with the bytes of a picture is missing, or is text and no file")
    if text is not None and not isinstance(text, str):
        raise Problem(422, f"the field {BOXES!r} must be text")
    return Upload(_base_name(picture.filename), await picture.read(), _boxes(text, limits))


async def drain(request: Request, limits: Limits) -> None:
    """Throw away what is still being sent, to a bound: a client that is refused while it sends may miss the reason."""
    left = 4 * limits.max_bytes
    with suppress(ClientDisconnect, RuntimeError):  # all that there was has been read
        async for chunk in request.stream():
            left -= len(chunk)
            if left < 0:
                return


async def _capped(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.max_bytes:
            raise _too_large(limits)
        yield chunk


def _too_large(limits: Limits) -> Problem:
    return Problem(413, f"the body is over the limit of {limits.max_bytes} bytes; make the picture smaller")


def _base_name(filename: str | None) -> str:
    name = (filename or "").replace("\\", "/").rpartition("/")[2]
    return name[:_MOST_NAME] or "image"


def _boxes(text: str | None, limits: Limits) -> np.ndarray | None:
    if text is None:
        return None
    try:
        boxes = check_boxes(json.loads(text))
    except (BoxError, ValueError, RecursionError) as error:
        raise Problem(422, f"{BOXES}: {error}") from None
    if len(boxes) > limits.max_boxes:
        raise Problem(422, f"{BOXES}: {len(boxes)} of them, over the limit of {limits.max_boxes}")
    return boxes
