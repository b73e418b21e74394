"""Pages of one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure


def page(template: str, **values: Any) -> str:
    """A page from a template that stands beside this file; ``{{ 1.234 | number }}`` is 1.23."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = "{:.2f}".format
    return environment.get_template(template).render(**values)


def data_uri(figure: Figure) -> str:
    """A figure as a picture that stands in the page itself."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
