"""Small pictures for hand-made samples of data sets, and what bad files of one say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facemtl.errors import DataError
from facemtl.image import write_image


def write_picture(path: Path, width: int = 12, height: int = 10) -> Path:
    """A black picture; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.zeros((height, width, 3), np.uint8))
    return path


def complaint(read, *arguments) -> str:
    """What the DataError says that this call raises."""
    with pytest.raises(DataError) as error:
        read(*arguments)
    return str(error.value)
