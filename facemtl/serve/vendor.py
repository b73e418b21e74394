"""The files of onnxruntime-web that the page runs a network with: which, and getting them when a wheel is built.

Nothing here is imported by the service but the names. ``setup.py`` runs this file by its path, where the package is not
yet installed: hence the standard library alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
# The smallest set that runs on a CPU: the library with its loader, and the compiled runtime. sha256 of each.
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
FOLDER = Path(__file__).with_name("_static") / PACKAGE
SECONDS = 300  # that npm may take


class VendorError(Exception):
    """Why the files could not be had; one sentence."""


def missing(folder: Path = FOLDER) -> list[str]:
    """Names of the files that are not in ``folder`` exactly as published."""
    return [name for name, digest in FILES.items() if _digest(folder / name) != digest]


def pack(folder: Path = FOLDER) -> None:
    """Have npm fetch the package, and put its files into ``folder``; nothing is done where they are already.

    npm runs no code of a package that it packs. What it fetched is compared with the hashes above.

    Raises:
        VendorError: there is no npm, it failed, or the files are not those that this version of facemtl knows.
    """
    if not missing(folder):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise VendorError("npm is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", scratch]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise VendorError(f"npm pack {PACKAGE}@{VERSION}: {error}") from None
        packed = sorted(Path(scratch).glob("*.tgz"))
        if done.returncode or len(packed) != 1:
            raise VendorError(f"npm pack {PACKAGE}@{VERSION} failed: {done.stderr.strip()[-300:]}")
        unpack(packed[0], folder)


def unpack(archive: Path, folder: Path = FOLDER) -> None:
    """Put the files of a packed ``onnxruntime-web`` into ``folder``, if all are those of :data:`FILES`.

    Raises:
        VendorError: the archive is damaged or another version; ``folder`` is then as it was.
    """
    found = {}
    try:
        with tarfile.open(archive) as tar:
            for name in FILES:
                member = tar.extractfile(f"package/dist/{name}")
                found[name] = member.read() if member else b""
    except (OSError, KeyError, tarfile.TarError) as error:
        raise VendorError(f"{archive.name} is not {PACKAGE} {VERSION}: {error}") from None
    for name, data in found.items():
        if hashlib.sha256(data).hexdigest() != FILES[name]:
            raise VendorError(f"{archive.name}: the sha256 of {name} is not the one of {PACKAGE} {VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in found.items():
        partial = folder / f".part-{name}"
        partial.write_bytes(data)
        partial.replace(folder / name)


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
