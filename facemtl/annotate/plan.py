"""What an annotation will read and how, written down before it starts: so that whoever continues it does the same.

A folder of annotations::

    manifest.json            the settings, how many inputs and parts there are; comes last: with it the plan is whole
    plan.jsonl               a line a part: its inputs
    plan.npy                 where each line begins
    parts/part-00000.parquet rows of the first inputs; a part is there whole or not at all
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from facemtl.annotate.inputs import Item
from facemtl.annotate.rows import row_schema
from facemtl.errors import ConfigError, DataError, OutputError, SourceError
from facemtl.files import write_beside

MANIFEST, LINES, OFFSETS, PARTS = "manifest.json", "plan.jsonl", "plan.npy", "parts"


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan on disk; safe to hand to other processes.

    Attributes:
        folder: of the annotation.
        settings: all that the result depends on, plain values.
        inputs: how many there are.
        parts: how many parts their rows make.
    """

    folder: Path
    settings: Mapping[str, Any]
    inputs: int
    parts: int

    @classmethod
    def make(cls, folder: Path, settings: Mapping[str, Any], items: Iterable[Item]) -> Plan:
        """Write the plan of these items; ``settings`` has ``part_size``, inputs a part, and ``format``.

        Raises:
            SourceError: there are no items.
        """
        items, offsets, count = iter(items), [0], 0

        def write(partial: Path) -> None:
            nonlocal count
            with partial.open("wb") as file:
                while part := list(islice(items, settings["part_size"])):
                    file.write(json.dumps([item.to_dict() for item in part]).encode() + b"\n")
                    offsets.append(file.tell())
                    count += len(part)

        write_beside(folder / LINES, write)
        if not count:
            raise SourceError("there is nothing to annotate: no photo, video or archive is among the inputs")
        write_beside(folder / OFFSETS, lambda partial: np.save(partial, np.int64(offsets)))
        plan = cls(folder, settings, count, len(offsets) - 1)
        (folder / PARTS).mkdir(exist_ok=True)
        text = json.dumps(plan._manifest(), indent=1, ensure_ascii=True) + "\n"
        write_beside(folder / MANIFEST, lambda partial: partial.write_text(text, encoding="utf-8"))
        return plan

    def _manifest(self) -> dict[str, Any]:
        return {
            "annotation": row_schema()["$id"],
            "inputs": self.inputs,
            "parts": self.parts,
            "settings": dict(self.settings),
        }

    @classmethod
    def open(cls, folder: Path) -> Plan:
        """The plan of a folder.

        Raises:
            DataError: there is none, or it is damaged or of another version.
        """
        try:
            found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            plan = cls(folder, found["settings"], int(found["inputs"]), int(found["parts"]))
        except FileNotFoundError:
            raise DataError(f"{folder} holds no annotation: there is no {MANIFEST}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / MANIFEST} is damaged: {error!r}") from None
        if found["annotation"] != row_schema()["$id"]:
            raise DataError(f"{folder} holds {found['annotation']}, this facemtl reads {row_schema()['$id']}")
        return plan

    @classmethod
    def continued(cls, folder: Path, settings: Mapping[str, Any]) -> Plan | None:
        """The plan of a folder if it has one.

        Raises:
            ConfigError: it was made with other settings; names them.
            DataError: as :meth:`open`.
        """
        if not (folder / MANIFEST).exists():
            return None
        plan = cls.open(folder)
        wanted = json.loads(json.dumps(settings))  # lists for tuples
        changed = [key for key in {**plan.settings, **wanted} if plan.settings.get(key) != wanted.get(key)]
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{folder} was begun with another {', '.join(changed)} ({key}: {plan.settings.get(key)!r}, now "
                f"{wanted.get(key)!r}): continue it with the same ones, or annotate to another folder"
            )
        return plan

    def path(self, part: int) -> Path:
        """The file of a part."""
        return self.folder / PARTS / f"part-{part:05d}.{self.settings['format']}"

    def missing(self) -> list[int]:
        """The parts that are still to be made."""
        return [part for part in range(self.parts) if not self.path(part).exists()]

    def items(self, part: int) -> tuple[int, list[Item]]:
        """The inputs of a part, and how many come before it."""
        offsets = np.load(self.folder / OFFSETS, mmap_mode="r")
        with (self.folder / LINES).open("rb") as file:
            file.seek(int(offsets[part]))
            line = file.read(int(offsets[part + 1] - offsets[part]))
        return part * self.settings["part_size"], [Item(**fields) for fields in json.loads(line)]

    def size(self, part: int) -> int:
        """How many inputs a part has."""
        return min(self.settings["part_size"], self.inputs - part * self.settings["part_size"])


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Within, nobody else annotates to this folder. A killed process leaves it free at once.

    Where Python has no ``fcntl`` (Windows) two processes are not kept apart.

    Raises:
        OutputError: somebody else does.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"another process annotates to {folder} now") from None
        yield


def remove_rests(folder: Path) -> None:
    """Remove the halves of files that a killed process left."""
    for place in (folder, folder / PARTS):
        for rest in place.glob(".part-*"):
            rest.unlink(missing_ok=True)
