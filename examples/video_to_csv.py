"""The faces of a video as a table, a row a face and frame, with identities that last: for plots and statistics.

python examples/video_to_csv.py clip.mp4 faces.csv
"""

import csv
import sys
from contextlib import closing
from pathlib import Path

from facemtl import Face, Predictor
from facemtl.sources import open_source
from facemtl.track import Tracker


def row_of(time: float, face: Face) -> dict[str, object]:
    """One face at one time; all rows of a model have the same columns."""
    row: dict[str, object] = {"seconds": round(time, 3), "track": face.track_id, "quality": face.quality}
    row |= dict(zip(("x1", "y1", "x2", "y2"), face.box.round(1).tolist(), strict=True))
    for task, attribute in face.attributes.items():
        row |= {f"{task}_{label}": round(share, 3) for label, share in attribute.probabilities.items()}
    if face.pose:
        row |= {"yaw": round(face.pose.yaw, 1), "pitch": round(face.pose.pitch, 1), "roll": round(face.pose.roll, 1)}
    return row


def main(video: str, table: str) -> None:
    track, rows = Tracker(Predictor()), []
    with closing(open_source(video)) as source:
        for frame in source:
            if frame.image is not None:
                rows += [row_of(frame.timestamp, face) for face in track(frame.image, frame.timestamp)]
    with Path(table).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["seconds", "track"])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} rows of {len({row['track'] for row in rows})} faces in {table}")


if __name__ == "__main__":
    main(*sys.argv[1:])
