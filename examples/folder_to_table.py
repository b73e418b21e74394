"""The faces of a folder of photos as a table: a row a face, for a spreadsheet or pandas.

python examples/folder_to_table.py photos faces.csv

Photos without a face give no row; photos that cannot be read are named on stderr, and the rest goes on.
"""

import csv
import sys
from pathlib import Path

from facemtl import Face, Predictor
from facemtl.sources import open_source


def row_of(name: str, number: int, face: Face) -> dict[str, object]:
    """One face as a row; all faces of a model have the same columns."""
    row: dict[str, object] = {"photo": name, "face": number, "score": round(face.score, 3)}
    row |= dict(zip(("x1", "y1", "x2", "y2"), face.box.round(1).tolist(), strict=True))
    for task, attribute in face.attributes.items():
        row |= {task: attribute.label, f"{task}_confidence": round(attribute.confidence, 3)}
    if face.pose:
        row |= {"yaw": round(face.pose.yaw, 1), "pitch": round(face.pose.pitch, 1), "roll": round(face.pose.roll, 1)}
    for point, (x, y) in face.to_dict()["landmarks"].items():
        row |= {f"{point}_x": x, f"{point}_y": y}
    return row


def main(folder: str, table: str) -> None:
    predict, rows = Predictor(), []
    for frame in open_source(folder).frames:
        if frame.image is None:
            print(frame.error, file=sys.stderr)
            continue
        rows += [row_of(frame.name, number, face) for number, face in enumerate(predict(frame.image), start=1)]
    with Path(table).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["photo", "face"])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} faces in {table}")


if __name__ == "__main__":
    main(*sys.argv[1:])
