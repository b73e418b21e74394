"""Only what pyproject.toml cannot say: a wheel carries the files of onnxruntime-web that `facemtl serve` hands out.

They are fetched by npm while a wheel (or an editable install) is built, and never committed. Without npm the wheel is
built all the same, with a warning: its page then works through the server.
"""

import runpy
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

VENDOR = Path(__file__).parent / "facemtl" / "serve" / "vendor.py"


class BuildWithVendorFiles(build_py):
    """As always, with the files in place first."""

    def run(self) -> None:
        vendor = runpy.run_path(str(VENDOR))
        try:
            vendor["pack"]()
        except vendor["VendorError"] as error:
            print(f"warning: the page will have no network in the browser: {error}", file=sys.stderr)
        super().run()


setup(cmdclass={"build_py": BuildWithVendorFiles})
