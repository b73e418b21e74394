"""Faces of any number of pictures, written to a folder of Parquet files or JSON lines: see docs/annotate.md.

from facemtl.annotate import PredictorOptions, annotate, read_rows

options = PredictorOptions().pinned()
annotate(["photos", "clip.mp4"], "out", options, options.identity())
for row in read_rows("out"):
    print(row["source"], row["status"], len(row["faces"]))
"""

from __future__ import annotations

from facemtl.annotate.rows import ROW_VERSION, read_rows, row_schema
from facemtl.annotate.run import Summary, annotate
from facemtl.annotate.work import PredictorOptions

__all__ = ["ROW_VERSION", "PredictorOptions", "Summary", "annotate", "read_rows", "row_schema"]
