"""Annotate anything: plan, make what is missing of it, check that every input has its one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemtl.annotate.inputs import find_items
from facemtl.annotate.on_processes import make_parts
from facemtl.annotate.plan import Plan, only_one, remove_rests
from facemtl.annotate.rows import FACES, FAILED, FORMATS, NO_FACE, arrow_schema, read_rows
from facemtl.annotate.work import settings_of
from facemtl.errors import ConfigError, DependencyError, OutputError
from facemtl.predictor import Predictor

PART_SIZE = 256  # inputs: a kill costs the parts that are not whole, one a process
BATCH = 16  # pictures
ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True)
class Summary:
    """What an annotation holds: ``inputs = with_faces + without + failed``, and how many ``faces`` there are."""

    inputs: int
    with_faces: int
    without: int
    failed: int
    faces: int


def annotate(
    inputs: Sequence[str],
    out: str | Path,
    open_predictor: Callable[[], Predictor],
    identity: Mapping[str, Any],
    format: str = "parquet",
    processes: int = 1,
    engine: str = "local",
    part_size: int = PART_SIZE,
    batch: int = BATCH,
    column: str = "image",
    base: Path | None = None,
    progress: bool = False,
) -> Summary:
    """Annotate ``inputs`` into the folder ``out``, or what is left of them if it was begun before.

    The content of ``out`` does not depend on how often it was interrupted, on ``processes`` or on ``engine``.

    Args:
        inputs: see :func:`facemtl.annotate.inputs.find_items`.
        out: made if missing; :mod:`facemtl.annotate.plan` says what stands in it, :mod:`facemtl.annotate.rows` how.
        open_predictor: opens the predictor in each process; must be picklable for several.
        identity: of the predictor, plain values; an annotation is continued by the same one only.
        format: a name of :data:`facemtl.annotate.rows.FORMATS`.
        processes: how many work at once; 1 is this process. With Ray, actors of one CPU each.
        engine: a name of :data:`ENGINES`.
        part_size: inputs a file.
        batch: pictures that go to the network at once.
        column: of lists.
        base: what relative paths are relative to; None: the current folder.
        progress: show a bar with rate and time left on stderr.

    Raises:
        SourceError: as :func:`facemtl.annotate.inputs.find_items`.
        DependencyError: a format, list, engine or bar needs a package that is not installed.
        ConfigError: an argument out of range, or ``out`` was begun with others.
        OutputError: another process annotates to ``out``, a part kept killing the process that made it, or parts are
            missing at the end.
        OSError: a file that cannot be written.
    """
    checks = {
        f"format must be one of {', '.join(FORMATS)}": format in FORMATS,
        f"engine must be one of {', '.join(ENGINES)}": engine in ENGINES,
        "processes, part_size and batch must be at least 1": min(processes, part_size, batch) >= 1,
    }
    for expected, fits in checks.items():
        if not fits:
            raise ConfigError(expected)
    if format == "parquet":
        arrow_schema()  # before anything is read
    bar = _bar if progress else lambda plan, missing: nullcontext(lambda count: None)
    out, base = Path(out).resolve(), Path.cwd() if base is None else base.resolve()
    settings = settings_of(identity, list(inputs), base, column, format, part_size, batch)
    out.mkdir(parents=True, exist_ok=True)
    with only_one(out):
        remove_rests(out)
        plan = Plan.continued(out, settings) or Plan.make(out, settings, find_items(inputs, base, column))
        missing = plan.missing()
        if missing:
            with bar(plan, missing) as done:
                if engine == "ray":
                    from facemtl.annotate.on_ray import make_parts_on_ray

                    make_parts_on_ray(plan, missing, open_predictor, processes, done)
                else:
                    make_parts(plan, missing, open_predictor, processes, done)
        return check(out)


def check(out: Path) -> Summary:
    """Count a finished annotation.

    Raises:
        OutputError: an input has no row, or several.
        DataError: a part is damaged.
    """
    plan = Plan.open(out)
    missing = plan.missing()
    if missing:
        shown = ", ".join(map(str, missing[:5]))
        raise OutputError(f"{len(missing)} of {plan.parts} parts are not in {out} ({shown} ...); the same call goes on")
    counts: Counter[str] = Counter()
    index, faces = -1, 0
    for index, row in enumerate(read_rows(out, ("index", "status", "faces"))):
        if row["index"] != index:
            raise OutputError(f"{out}: expected the row of input {index}, found that of {row['index']}")
        counts[row["status"]] += 1
        faces += len(row["faces"])
    if index + 1 != plan.inputs:
        raise OutputError(f"{out} has {index + 1} rows for {plan.inputs} inputs")
    return Summary(plan.inputs, counts[FACES], counts[NO_FACE], counts[FAILED], faces)


def _bar(plan: Plan, missing: Sequence[int]) -> AbstractContextManager[Callable[[int], None]]:
    try:
        from tqdm import tqdm
    except ImportError:
        raise DependencyError("progress needs tqdm: pip install 'facemtl[annotate]', or leave it out") from None
    left = sum(map(plan.size, missing))

    class Bar(AbstractContextManager):
        def __enter__(self) -> Callable[[int], None]:
            self._bar = tqdm(total=plan.inputs, initial=plan.inputs - left, unit="input", desc="annotating")
            return self._bar.update

        def __exit__(self, *_: object) -> None:
            self._bar.close()

    return Bar()
