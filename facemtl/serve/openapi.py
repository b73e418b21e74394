"""The description of the service for programs: an OpenAPI 3.1 document, whose schemas are JSON Schema 2020-12."""

from __future__ import annotations

from typing import Any

from facemtl import __version__
from facemtl.formats.plain import FACE_VERSION, face_schema
from facemtl.serve.limits import Limits
from facemtl.serve.problems import MEDIA_TYPE, problem_schema


def faces_schema() -> dict[str, Any]:
    """The JSON Schema of an answer of ``/predict``; a face is ``#/components/schemas/Face``."""
    image = _closed(
        {
            "name": {"type": "string", "description": "What the sender called the picture."},
            "width": {"type": "integer", "minimum": 1, "description": "Pixels, upright as EXIF says."},
            "height": {"type": "integer", "minimum": 1},
            "faces": {"type": "array", "items": {"$ref": "#/components/schemas/Face"}},
        }
    )
    return _closed(
        {
            "face_version": {"const": FACE_VERSION},
            "images": {"type": "array", "items": image, "minItems": 1, "maxItems": 1},
        }
    )


def openapi_document(limits: Limits) -> dict[str, Any]:
    """What the service offers to programs, with the limits that this one has."""
    form = {
        "type": "object",
        "properties": {
            "image": {
                "type": "string",
                "format": "binary",
                "description": f"JPEG, PNG, GIF, BMP, WebP or TIFF of at most {limits.max_pixels} pixels.",
            },
            "boxes": {
                "type": "string",
                "description": f"JSON: at most {limits.max_boxes} boxes [[x1, y1, x2, y2], ...] in pixels. The faces "
                "are there, and are not looked for.",
            },
        },
        "required": ["image"],
        "additionalProperties": False,
    }
    refusals = {
        403: "the request comes from a page of another origin",
        408: f"the body took over {limits.seconds:g} seconds to arrive",
        413: f"over {limits.max_bytes} bytes or over {limits.max_pixels} pixels",
        415: "no multipart/form-data, or no picture of a known format",
        422: "a field is missing, unknown or wrong, or the picture is damaged",
        500: "a fault of the service",
        503: f"over {limits.workers + limits.queue} requests at once, or no answer within {limits.seconds:g} seconds",
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "facemtl",
            "version": __version__,
            "description": "Faces in a picture: points, attributes, head angles. Pictures are kept in memory for as "
            "long as a request lasts and are written nowhere; no address or path is ever read from a request.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "The faces of one picture.",
                    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
                    "responses": {
                        "200": _answer("The faces, surest first, or in the order of the boxes.", "Faces"),
                        **{str(status): _answer(why, "Problem", MEDIA_TYPE) for status, why in refusals.items()},
                    },
                }
            },
            "/health": {
                "get": {
                    "operationId": "health",
                    "summary": "Whether the service is there, and with which model.",
                    "responses": {"200": _answer("It is.", "Health")},
                }
            },
        },
        "components": {
            "schemas": {
                "Face": {k: v for k, v in face_schema().items() if not k.startswith("$")},
                "Faces": faces_schema(),
                "Health": _closed(
                    {"status": {"const": "ok"}, "model": {"type": "string"}, "version": {"type": "string"}}
                ),
                "Problem": problem_schema(),
            }
        },
    }


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _answer(description: str, schema: str, media_type: str = "application/json") -> dict[str, Any]:
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": f"{description[0].upper()}{description[1:]}", "content": content}
