from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemtl import bundles
from facemtl.bundles import is_bundle, members
from facemtl.errors import SourceError

FILES = {"a/0.jpg": b"zero", "b.txt": b"", "a/1.jpg": bytes(range(256)) * 8}
CAP = 10_000


def tar_bytes(files: dict[str, bytes], special: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in special:
            archive.addfile(info)
    return file.getvalue()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def read_all(path: Path) -> tuple[list[tuple[str, bytes | str]], str | None]:
    """Name and bytes, or why not, of every member; and why there are no more."""
    found: list[tuple[str, bytes | str]] = []
    try:
        for member in members(path):
            try:
                found.append((member.name, member.read(CAP)))
            except SourceError as error:
                found.append((member.name, str(error)))
    except SourceError as error:
        return found, str(error)
    return found, None


PACKED = {
    "f.tar": tar_bytes(FILES),
    "f.tar.gz": gzip.compress(tar_bytes(FILES)),
    "f.tgz": gzip.compress(tar_bytes(FILES)),
    "f.tar.bz2": bz2.compress(tar_bytes(FILES)),
    "f.tar.xz": lzma.compress(tar_bytes(FILES)),
    "f.ZIP": zip_bytes(FILES),
}


@pytest.mark.parametrize("name", PACKED)
def test_files_come_in_their_order(tmp_path, name):
    (tmp_path / name).write_bytes(PACKED[name])
    assert is_bundle(name)
    assert read_all(tmp_path / name) == (list(FILES.items()), None)
    assert [m.entry for m in members(tmp_path / name)] == [0, 1, 2]


def test_folders_are_left_out_and_still_counted(tmp_path):
    (tmp_path / "f.tar").write_bytes(tar_bytes({}, (special("a", tarfile.DIRTYPE), special("b.jpg", tarfile.REGTYPE))))
    (tmp_path / "f.zip").write_bytes(zip_bytes({"a/": b"", "b.jpg": b""}))
    for name in ("f.tar", "f.zip"):
        assert [(m.entry, m.name) for m in members(tmp_path / name)] == [(1, "b.jpg")]


def test_a_plain_tar_says_where_its_bytes_are(tmp_path):
    (tmp_path / "f.tar").write_bytes(PACKED["f.tar"])
    (tmp_path / "f.tgz").write_bytes(PACKED["f.tgz"])
    raw = PACKED["f.tar"]
    assert [raw[m.offset : m.offset + m.size] for m in members(tmp_path / "f.tar")] == list(FILES.values())
    assert [m.offset for m in members(tmp_path / "f.tgz")] == [None] * 3


def test_a_name_may_come_twice(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for data in (b"first", b"second"):
            info = tarfile.TarInfo("a.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (tmp_path / "f.tar").write_bytes(file.getvalue())
    assert read_all(tmp_path / "f.tar") == ([("a.jpg", b"first"), ("a.jpg", b"second")], None)


# What is refused


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "C:\\a.jpg", "..\\a.jpg"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    (tmp_path / "f.tar").write_bytes(tar_bytes({name: b"x"}))
    (tmp_path / "f.zip").write_bytes(zip_bytes({name: b"x"}))
    for file in ("f.tar", "f.zip"):
        ((_, reason),), end = read_all(tmp_path / file)
        assert (reason, end) == ("has a name that leads out of its archive", None)


def test_links_and_devices_are_refused(tmp_path):
    kinds = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE
    infos = tuple(special(f"{i}.jpg", kind, "/etc/passwd") for i, kind in enumerate(kinds))
    (tmp_path / "f.tar").write_bytes(tar_bytes({}, infos))
    assert {reason for _, reason in read_all(tmp_path / "f.tar")[0]} == {"is a link or device"}
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        info = zipfile.ZipInfo("link.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert read_all(tmp_path / "f.zip") == ([("link.jpg", "is a link or device")], None)


def test_an_encrypted_member_is_refused(tmp_path):
    data = bytearray(zip_bytes({"a.jpg": b"x"}))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    (tmp_path / "f.zip").write_bytes(data)
    assert read_all(tmp_path / "f.zip") == ([("a.jpg", "is encrypted")], None)


def test_more_bytes_than_asked_for_are_refused(tmp_path):
    files = {"a.jpg": bytes(CAP + 1), "b.jpg": bytes(CAP)}
    (tmp_path / "f.tar").write_bytes(tar_bytes(files))
    (tmp_path / "f.zip").write_bytes(zip_bytes(files))
    for name in ("f.tar", "f.zip"):
        (a, b), end = read_all(tmp_path / name)
        assert (a, b, end) == (
            ("a.jpg", "has more bytes than the limit of 0.00953674 MiB"),
            ("b.jpg", bytes(CAP)),
            None,
        )


def test_a_zip_that_lies_about_a_size_is_not_believed(tmp_path):
    data = bytearray(zip_bytes({"a.jpg": bytes(1_000_000)}))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature) + place
        data[start : start + 4] = struct.pack("<I", 100)
    (tmp_path / "f.zip").write_bytes(data)
    ((_, reason),), _ = read_all(tmp_path / "f.zip")
    assert isinstance(reason, str)


def test_a_tar_that_unpacks_to_far_more_than_its_size_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "SLACK", 1000)
    (tmp_path / "f.tgz").write_bytes(gzip.compress(tar_bytes({"a.jpg": b"a", "b.jpg": bytes(10_000_000)})))
    found, end = read_all(tmp_path / "f.tgz")
    assert found == [("a.jpg", b"a")]
    assert "unpacks to over 200 times its size" in end


def test_an_endless_header_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "_LONGEST_READ", 100_000)
    header = special("x", tarfile.XHDTYPE)
    header.size = 10**9
    (tmp_path / "f.tar").write_bytes(header.tobuf() + bytes(2048))
    assert "has a header of" in read_all(tmp_path / "f.tar")[1]


# What is damaged


@pytest.mark.parametrize("cut", [0, 100, 512, 514, 600, 1024, 1536, 2048, 4096])
def test_a_cut_tar_says_so(tmp_path, cut):
    (tmp_path / "f.tar").write_bytes(PACKED["f.tar"][:cut])
    found, end = read_all(tmp_path / "f.tar")
    assert end.startswith("is damaged or no archive: ")
    whole = [data for name, data in found if data == FILES[name]]
    assert len(whole) >= len(found) - 1  # the last one may be cut


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path):
    data = bytearray(PACKED["f.tar"])
    data[1024 + 10] ^= 1  # in the name of the second file: its checksum fails
    (tmp_path / "f.tar").write_bytes(data)
    assert read_all(tmp_path / "f.tar") == (
        [("a/0.jpg", b"zero")],
        "is damaged or no archive: it ends or breaks after 1 entries, without the mark of its end",
    )


@pytest.mark.parametrize("name", ["f.tar", "f.zip", "f.tar.gz"])
def test_what_is_no_archive_or_missing(tmp_path, name):
    assert read_all(tmp_path / name) == ([], "does not exist")
    (tmp_path / name).write_bytes(b"not an archive" * 100)
    assert read_all(tmp_path / name)[1].startswith("is damaged or no archive: ")


@given(
    name=st.sampled_from(sorted(PACKED)),
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_flipped_bytes_give_files_or_reasons(tmp_path_factory, name, flips):
    data = bytearray(PACKED[name])
    for place, mask in flips:
        data[place % len(data)] ^= mask
    path = tmp_path_factory.mktemp("flipped") / name
    path.write_bytes(data)
    for _, read in read_all(path)[0]:
        assert isinstance(read, bytes | str)
