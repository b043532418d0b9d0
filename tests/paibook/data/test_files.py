"""Whole files as records: documents, bytes, pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

from paibook.data.splits import file_splits, records
from paibook.errors import DataError


def read(path: Path, format: str | None = None) -> list[Any]:
    return [record for split in file_splits([str(path)], 2, format) for record in records(split)]


def test_pictures_come_as_bytes_by_their_ending(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\x00\xff")
    (tmp_path / "b.JPG").write_bytes(b"")
    assert read(tmp_path) == [
        {"path": str(tmp_path / "a.png"), "bytes": b"\x89PNG\x00\xff"},
        {"path": str(tmp_path / "b.JPG"), "bytes": b""},
    ]


def test_many_small_files_share_a_split(tmp_path: Path) -> None:
    for i in range(500):
        (tmp_path / f"{i:03}.bin").write_bytes(bytes([i % 256]) * 10)
    assert len(file_splits([str(tmp_path)], 2)) == 1
    assert [record["bytes"][0] for record in read(tmp_path)] == [i % 256 for i in range(500)]


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [("RGB", "png", 3), ("L", "png", 1), ("RGBA", "png", 4), ("P", "gif", 3), ("1", "bmp", 1)],
)
def test_images_are_arrays_of_height_width_channels(tmp_path: Path, mode: str, suffix: str, channels: int) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new(mode, (5, 3), 1 if mode in ("P", "1", "L") else (10, 20, 30, 255)[: len(mode)]).save(
        tmp_path / f"a.{suffix}"
    )
    (record,) = read(tmp_path, "image")
    assert record["path"] == str(tmp_path / f"a.{suffix}")
    assert record["image"].shape == (3, 5, channels)
    assert record["image"].dtype == numpy.uint8
    if mode == "RGB":
        assert record["image"][2, 4].tolist() == [10, 20, 30]


def test_an_image_that_is_none_is_named(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cannot read .*a\.png as image"):
        read(tmp_path, "image")


def test_an_image_of_16_bits_is_not_clipped_silently(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(numpy.full((2, 2), 40_000, numpy.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        read(tmp_path, "image")


def test_without_pillow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"paibook\[images\]"):
        read(tmp_path, "image")
