"""The command line: ``facemtl predict``, ``facemtl demo``, ``facemtl serve`` and ``facemtl models``."""

# What a command needs is imported in it: --help must not wait for OpenCV and onnxruntime.
from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from facemtl.errors import BoxError, ConfigError, FaceMTLError, SourceError

if TYPE_CHECKING:
    from facemtl.demo import Summary
    from facemtl.face import Face
    from facemtl.predictor import Predictor

_PREDICT_EXAMPLES = """examples:
  facemtl predict photo.jpg                               a table of the faces
  facemtl predict --json *.jpg > faces.jsonl              one line of JSON a photo, with all points
  facemtl predict --format coco *.jpg > faces.json        one file for all, for another program
  facemtl predict photo.jpg --out annotated.png           draw them
  facemtl predict photo.jpg --boxes 40,30,160,150         the face is there: skip the detector
  facemtl predict photo.jpg --tasks landmarks,glasses     leave the other attributes out
  facemtl predict photo.jpg --json --schema ibug68        68 points instead of five, where the model has them
"""

_DEMO_EXAMPLES = """examples:
  facemtl demo                                            the first camera, in a window
  facemtl demo clip.mp4                                   a video, in a window
  facemtl demo clip.mp4 --headless --out results          results/clip.mp4.faces.mp4
  facemtl demo photos --headless --out results --jsonl results/faces.jsonl
  facemtl demo 0 --headless --out results                 record the camera until Ctrl-C
  facemtl demo rtsp://10.0.0.5/cam                        a camera in the network, or a video at an address

in the window: q or Esc ends; space, Enter or the right arrow shows the next photo; h shows the other keys
"""

_SERVE_EXAMPLES = """examples:
  facemtl serve                                           the page, for this machine alone
  facemtl serve --port 9000 --schema ibug68               68 points
  curl -F image=@photo.jpg http://127.0.0.1:8000/predict  the faces as JSON
"""

_FORMATS = ("coco", "cvat", "fiftyone", "fiftyone-detections", "label-studio", "plain", "rekognition")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of ``facemtl``.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        0; or 2 after an error, which is one sentence on stderr; or 130 if Ctrl-C cut it short. Asking for help and
        misspelt options leave by SystemExit, as argparse does.
    """
    args = _parser().parse_args(argv)
    logging.basicConfig(format="facemtl: %(message)s")
    _quiet_opencv()
    try:
        return args.command(args)
    except FaceMTLError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return 130


def _fail(sentence: str) -> int:
    print(f"facemtl: {sentence}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="facemtl",
        description="Facial landmarks, glasses, smile, gender and pose from one small network.",
        epilog="`facemtl COMMAND --help` has examples.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    predict = _command(commands, "predict", "describe the faces in photos", _PREDICT_EXAMPLES, _predict)
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="photos")
    output = predict.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one line of JSON a photo instead of a table")
    output.add_argument(
        "--format",
        choices=_FORMATS,
        help="print one document of all photos in another program's format: %(choices)s",
        metavar="NAME",
    )
    predict.add_argument(
        "--boxes",
        metavar="X1,Y1,X2,Y2",
        nargs="+",
        action="extend",
        help="where the faces are, in pixels (one photo only); write --boxes=-4,... if it starts with a minus",
    )
    predict.add_argument("--out", metavar="PICTURE", help="write the photo with the faces drawn on it (one photo only)")
    _add_predictor_options(predict)

    demo = _command(commands, "demo", "annotate a camera, a video, or photos", _DEMO_EXAMPLES, _demo)
    demo.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        default="0",
        help="photo, folder, video file, index of a camera, or address of a stream (default: 0)",
    )
    demo.add_argument("--headless", action="store_true", help="open no window")
    demo.add_argument("--out", metavar="DIR", help="write annotated photos or videos, snapshots and recordings there")
    demo.add_argument("--jsonl", metavar="FILE", help="write one line of JSON a frame")
    demo.add_argument("--max-frames", metavar="N", type=_positive, help="stop after N frames")
    demo.add_argument(
        "--no-tracking", dest="tracking", action="store_false", help="look at each frame of a video by itself"
    )
    demo.add_argument("--no-mirror", dest="mirror", action="store_false", help="show a camera as others see you")
    demo.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="a bar with rate and time left on stderr (default: if that is a terminal, and tqdm is installed)",
    )
    _add_predictor_options(demo)

    serve = _command(commands, "serve", "open a page with camera and photos, and /predict", _SERVE_EXAMPLES, _serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, no one else's)")
    serve.add_argument(
        "--port", metavar="N", type=_port, default=8000, help="0 takes a free one (default: %(default)s)"
    )
    serve.add_argument("--workers", metavar="N", type=_positive, help="pictures in work at once (default: 2)")
    serve.add_argument("--queue", metavar="N", type=_positive, help="requests that may wait (default: 16)")
    serve.add_argument("--max-bytes", metavar="N", type=_positive, help="of a request (default: 16 MiB)")
    serve.add_argument("--max-pixels", metavar="N", type=_positive, help="of a picture (default: 25 million)")
    serve.add_argument("--seconds", metavar="N", type=_positive, help="until an answer is too late (default: 10)")
    _add_predictor_options(serve)

    _command(commands, "models", "list the models that come with the package", None, _models)
    return parser


def _command(
    commands: argparse._SubParsersAction,
    name: str,
    summary: str,
    epilog: str | None,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def _add_predictor_options(parser: argparse.ArgumentParser) -> None:
    # No defaults of our own: what is not given is left to the Predictor.
    parser.add_argument("--model", help="a name that `facemtl models` lists, or a path (default: the best shipped one)")
    parser.add_argument("--device", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", metavar="N", type=_positive, help="CPU threads (default: 1)")
    parser.add_argument(
        "--tasks", metavar="T,T", type=_names, help="only these, such as landmarks,pose (default: all of the model)"
    )
    parser.add_argument(
        "--schema", help="which points, such as ibug68, where the model has several (default: its main)"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def load_predictor(args: argparse.Namespace) -> Predictor:
    """The predictor that the options ask for."""
    from facemtl.predictor import Predictor

    given = {name: getattr(args, name) for name in ("model", "device", "threads", "tasks", "schema")}
    return Predictor(**{name: value for name, value in given.items() if value is not None})


def _quiet_opencv() -> None:
    """Stop OpenCV and FFmpeg from commenting on what cannot be opened: our own sentence is enough.

    Both read their variable when they are loaded, and what the user has set stays.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def _predict(args: argparse.Namespace) -> int:
    from facemtl.draw import draw_faces
    from facemtl.files import make_folder
    from facemtl.image import read_image, write_image
    from facemtl.outputs import frame_record
    from facemtl.sources import Frame

    if len(args.images) > 1 and (args.boxes or args.out):
        raise ConfigError("--boxes and --out go with one photo; `facemtl demo FOLDER --out DIR` draws on many")
    boxes = [_box(text) for text in args.boxes] if args.boxes else None
    for path in map(Path, args.images):  # before the model is loaded and before anything is printed
        if path.is_dir():
            raise SourceError(f"{path} is a folder, which `facemtl demo {path}` takes; predict takes photos")
        if not path.exists():
            raise SourceError(f"{path} does not exist")
    predict = load_predictor(args)
    found = []
    for index, path in enumerate(args.images):
        image = read_image(path)
        faces = predict(image, boxes=boxes)
        if args.out:
            make_folder(Path(args.out).parent)
            write_image(args.out, draw_faces(image, faces))
        if args.format:
            found.append((path, image.shape[1], image.shape[0], faces))
        elif args.json:
            print(json.dumps(frame_record(Frame(path, index, image), faces), allow_nan=False))
        else:
            print(face_table(path, faces))
    if args.format:
        from facemtl.formats import ImageFaces, format_text

        print(format_text([ImageFaces(*image) for image in found], args.format), end="")
    return 0


def _box(text: str) -> list[float]:
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise BoxError(f"--boxes: {text!r} is not X1,Y1,X2,Y2 in pixels; photos go before the option") from None
    return [x1, y1, x2, y2]


def face_table(name: str, faces: Sequence[Face]) -> str:
    """The faces of one picture for people: a heading, a row a face, and its points where they are few.

    A question mark stands behind an attribute that is not certain. Angles are in degrees.
    """
    from facemtl.demo import count_of
    from facemtl.landmarks import SCHEMAS

    heading = f"{name}: {count_of(len(faces), 'face')}"
    if not faces:
        return heading
    columns = ["score", "box x1 y1 x2 y2", *faces[0].attributes, *(["yaw pitch roll"] if faces[0].pose else [])]
    rows = [["face", *columns]]
    for number, face in enumerate(faces, start=1):
        cells = [str(number), f"{face.score:.2f}", " ".join(f"{v:.0f}" for v in face.box)]
        cells += [f"{a.label} {a.confidence:.0%}{'' if a.certain else '?'}" for a in face.attributes.values()]
        if face.pose:
            cells.append(f"{face.pose.yaw:+.0f} {face.pose.pitch:+.0f} {face.pose.roll:+.0f}")
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    table = [heading, lines[0]]
    for line, face in zip(lines[1:], faces, strict=True):
        table.append(line)
        names = SCHEMAS[face.schema].names
        if 0 < len(face.landmarks) <= 5:
            points = zip(names, face.landmarks, strict=True)
            table.append("      " + ", ".join(f"{point} {x:.1f} {y:.1f}" for point, (x, y) in points))
    return "\n".join(table)


def _demo(args: argparse.Namespace) -> int:
    from facemtl.demo import run_demo
    from facemtl.sources import open_source
    from facemtl.track import Tracker

    with ExitStack() as stack:
        source = stack.enter_context(closing(open_source(args.source)))
        window = None
        if not args.headless:
            from facemtl.window import Window

            window = stack.enter_context(closing(Window(f"facemtl: {source.name}")))
        can_draw = sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None
        wants_progress = can_draw if args.progress is None else args.progress
        predict = load_predictor(args)
        summary = run_demo(
            predict,
            source,
            out_dir=args.out,
            window=window,
            jsonl=args.jsonl,
            mirror=args.mirror,
            max_frames=args.max_frames,
            progress=sys.stderr if wants_progress else None,
            tracker=Tracker(predict) if args.tracking and not source.still else None,
        )
    print(_summary_line(summary, args), file=sys.stderr)
    # Ctrl-C is how a recording without a window ends; elsewhere it leaves work undone.
    return 130 if summary.interrupted and not source.live else 0


def _summary_line(summary: Summary, args: argparse.Namespace) -> str:
    from facemtl.demo import count_of

    parts = [count_of(summary.frames, "frame"), count_of(summary.faces, "face")]
    if summary.frames:
        parts.append(f"{1000 * summary.seconds / summary.frames:.1f} ms each in the predictor")
    if summary.errors:
        parts.append(count_of(summary.errors, "frame") + " could not be read")
    if summary.dropped:
        parts.append(count_of(summary.dropped, "frame") + " dropped to keep up")
    if summary.pictures:
        parts.append(f"{count_of(summary.pictures, 'picture')} in {args.out}")
    if summary.recording:
        parts.append(str(summary.recording))
    if args.jsonl:
        parts.append(args.jsonl)
    return ", ".join(parts)


def _serve(args: argparse.Namespace) -> int:
    from facemtl.serve.limits import Limits
    from facemtl.serve.run import onnx_file, serve
    from facemtl.weights import DEFAULT_MODEL

    caps = {name: getattr(args, name) for name in ("workers", "queue", "max_bytes", "max_pixels", "seconds")}
    limits = Limits(**{name: value for name, value in caps.items() if value is not None})
    model_file = onnx_file(args.model or DEFAULT_MODEL)
    serve(load_predictor(args), model_file, args.host, args.port, limits, ready=_say_address)
    return 0


def _say_address(address: str) -> None:
    print(f"{address}  (Ctrl-C ends)", flush=True)


def _models(args: argparse.Namespace) -> int:
    from facemtl.weights import list_models, load_card

    for name in list_models():
        print(f"{name:<20} {load_card(name).get('summary', '')}".rstrip())
    return 0
