"""A file of lines, read while another process writes it."""

from __future__ import annotations

from pathlib import Path

from paibook.line_tail import LineTail


def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    tail = LineTail(tmp_path / "log")
    assert tail.read() == []
    (tmp_path / "log").write_text("one\n")
    assert tail.read() == ["one"]
    assert tail.read() == []


def test_a_line_comes_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\nt")
    tail = LineTail(path)
    assert tail.read() == ["one"]
    with path.open("ab") as file:
        file.write("wö".encode()[:2])  # in the middle of a letter
    assert tail.read() == []
    with path.open("ab") as file:
        file.write("wö\n".encode()[2:])
    assert tail.read() == ["twö"]


def test_a_long_file_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [str(number) * 10 for number in range(100)]
    path.write_text("\n".join([*lines, "x" * 500]) + "\n")
    tail = LineTail(path)
    pieces = []
    while piece := tail.read(most=64):
        pieces.append(piece)
    assert len(pieces) > 10
    assert [line for piece in pieces for line in piece] == [*lines, "x" * 500]
