"""Points of a set and of a model with different landmark schemas: judged by what the two have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from facemtl.errors import ConfigError
from facemtl.face import Face
from facemtl.landmarks import SCHEMAS, Conversion, conversion


@dataclass(frozen=True, slots=True)
class SharedPoints:
    """A schema that the points of two others can be turned into.

    Attributes:
        schema: key of :data:`facemtl.landmarks.SCHEMAS`; the points that are compared.
        of_set, of_model: how each side's points give those.
        model_schema: which of the model's schemas is used.
    """

    schema: str
    of_set: Conversion
    of_model: Conversion
    model_schema: str

    @property
    def exact(self) -> bool:
        """Whether neither side's points move on the way."""
        return self.of_set.exact and self.of_model.exact

    def face(self, face: Face) -> Face:
        """A face of the model with the shared points; standard deviations stay where every point is one of its own."""
        sigma = face.landmark_sigma
        single = all(len(group) == 1 for group in self.of_model.groups)
        if sigma is not None:
            sigma = sigma[[group[0] for group in self.of_model.groups]] if single else None
        return replace(face, landmarks=self.of_model(face.landmarks), schema=self.schema, landmark_sigma=sigma)


def shared_points(set_schema: str, model_schemas: Iterable[str]) -> SharedPoints:
    """The richest schema that a set's points and some of a model's can both be turned into, exact ones first.

    Args:
        set_schema: of the set's points.
        model_schemas: of the model's, the main one first; among equals the first is used.

    Raises:
        ConfigError: they have nothing in common, or a schema is unknown; names both sides.
    """
    model_schemas = tuple(model_schemas)
    found: list[SharedPoints] = []
    for schema in SCHEMAS:
        for model_schema in model_schemas:
            try:
                ways = conversion(set_schema, schema), conversion(model_schema, schema)
            except ConfigError:
                continue
            found.append(SharedPoints(schema, *ways, model_schema))
    if not found:
        raise ConfigError(
            f"points of {set_schema!r} cannot be compared with those of {', '.join(map(repr, model_schemas))}"
        )
    return max(found, key=lambda shared: (len(SCHEMAS[shared.schema]), shared.exact))


def how_shared(set_schema: str, model_schema: str, schema: str) -> dict[str, Any]:
    """How the points of both sides became those of ``schema``, as plain values.

    Returns:
        ``set`` and ``model``, their schemas; ``exact``, whether no point moved on the way; ``set_offset_percent`` and
        ``model_offset_percent``, the measured offsets of :class:`facemtl.landmarks.Conversion` in percent of the
        distance of the eye centres, None where not measured: the evaluation's own ``point_offset_percent`` measures it.
    """
    found: dict[str, Any] = {"set": set_schema, "model": model_schema, "exact": True}
    for side in ("set", "model"):
        way = conversion(found[side], schema)
        found["exact"] &= way.exact
        found[f"{side}_offset_percent"] = None if way.offset is None else [[100 * v for v in xy] for xy in way.offset]
    return found
