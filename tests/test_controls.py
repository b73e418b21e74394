"""The keys of the window."""

from __future__ import annotations

import re

import pytest

from facemtl.controls import HELP_TEXT, PARTS, Controls
from facemtl.draw import Overlay


@pytest.mark.parametrize(("key", "part"), PARTS.items())
def test_a_key_switches_its_part_off_and_on(key: str, part: str) -> None:
    controls = Controls()
    assert controls.press([key]) == []
    assert controls.overlay == Overlay(**{part: False})
    controls.press([key])
    assert controls.overlay == Overlay()


def test_mirror_and_help_are_switched() -> None:
    controls = Controls(mirror=False)
    controls.press(["m", "h"])
    assert (controls.mirror, controls.help) == (True, True)
    controls.press(["h"])
    assert (controls.mirror, controls.help) == (True, False)


def test_what_asks_for_more_is_handed_on_and_the_rest_ignored() -> None:
    assert Controls().press(["s", "F1", "p", "t", "r", "s"]) == ["s", "t", "r", "s"]


def test_the_help_names_every_key() -> None:
    explained = set(re.findall(r"(?:^|   )([a-z])(?= )", HELP_TEXT, re.MULTILINE))
    assert explained == {*PARTS, "m", "t", "r", "s", "h", "q"}
