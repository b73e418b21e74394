"""The files of onnxruntime-web: taken from what npm packs, exactly as known, or not at all."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from facemtl.serve import vendor

CONTENTS = {"ort.wasm.bundle.min.mjs": b"export {};", "ort-wasm-simd-threaded.wasm": b"\0asm"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of two tiny files in place of the real one."""
    assert set(vendor.FILES) == set(CONTENTS)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()}
    monkeypatch.setattr(vendor, "FILES", hashes)


def archive(folder: Path, contents: dict[str, bytes]) -> Path:
    path = folder / "onnxruntime-web.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an npm of our own first on the PATH."""
    program = folder / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_files_are_unpacked_as_they_are(tmp_path):
    target = tmp_path / "static" / "vendor"
    assert vendor.missing(target) == list(CONTENTS)
    vendor.unpack(archive(tmp_path, {**CONTENTS, "ort.all.min.js": b"more"}), target)
    assert vendor.missing(target) == []
    assert {path.name: path.read_bytes() for path in target.iterdir()} == CONTENTS


@pytest.mark.parametrize(
    "contents",
    [
        {**CONTENTS, "ort-wasm-simd-threaded.wasm": b"\0asn"},
        {"ort.wasm.bundle.min.mjs": b"export {};"},
        {},
    ],
)
def test_another_file_changes_nothing(tmp_path, contents):
    target = tmp_path / "vendor"
    with pytest.raises(vendor.VendorError, match="onnxruntime-web"):
        vendor.unpack(archive(tmp_path, contents), target)
    assert not target.exists()


def test_what_is_no_archive_is_said(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"not gzip")
    with pytest.raises(vendor.VendorError, match=r"a\.tgz is not onnxruntime-web"):
        vendor.unpack(tmp_path / "a.tgz", tmp_path / "vendor")


def test_npm_is_asked_for_the_pinned_version_and_only_when_needed(tmp_path, monkeypatch):
    packed = archive(tmp_path, CONTENTS)
    npm(tmp_path, monkeypatch, f'echo "$@" >> {tmp_path}/asked; cp {packed} "$5"/onnxruntime-web-1.tgz')
    for _ in range(2):
        vendor.pack(tmp_path / "vendor")
    assert vendor.missing(tmp_path / "vendor") == []
    (line,) = (tmp_path / "asked").read_text().splitlines()
    assert line.startswith(f"pack onnxruntime-web@{vendor.VERSION} --silent --pack-destination ")


def test_a_file_that_was_changed_is_fetched_again(tmp_path, monkeypatch):
    packed = archive(tmp_path, CONTENTS)
    npm(tmp_path, monkeypatch, f'cp {packed} "$5"/')
    vendor.pack(tmp_path / "vendor")
    (tmp_path / "vendor" / "ort.wasm.bundle.min.mjs").write_bytes(b"evil();")
    assert vendor.missing(tmp_path / "vendor") == ["ort.wasm.bundle.min.mjs"]
    vendor.pack(tmp_path / "vendor")
    assert vendor.missing(tmp_path / "vendor") == []


def test_without_npm_or_its_registry_the_reason_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(vendor.VendorError, match="npm is not installed"):
        vendor.pack(tmp_path / "vendor")
    npm(tmp_path, monkeypatch, "echo no such host >&2; exit 1")
    with pytest.raises(vendor.VendorError, match="failed: no such host"):
        vendor.pack(tmp_path / "vendor")
