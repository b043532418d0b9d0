"""What a split is called where people see it: the file or variable, and which part of it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from paibook.data.pieces import Piece
from paibook.data.sampling import SampledSplit
from paibook.data.splits import FileSplit
from paibook.data.variables import PendingSplit, SavedSplit, VariableSplit


def split_label(split: Any) -> tuple[str, str]:
    """The source's name and the part of it, such as ``("docs.txt", "bytes 0 to 65,536")``; empty where not known."""
    if isinstance(split, FileSplit):
        return _of_pieces(split.pieces)
    if isinstance(split, (VariableSplit, SavedSplit)):
        return split.name, f"from item {split.first:,}"
    if isinstance(split, PendingSplit):
        return split.name, f"partition {split.number}"
    if isinstance(split, SampledSplit) and split.parts:
        first = split.parts[0]
        name, part = _of_piece(first) if isinstance(first, Piece) else split_label(first)
        return name, f"a sample of {part}" if part else "a sample"
    inner = getattr(split, "split", None)  # of a query: one with its columns' types
    return split_label(inner) if inner is not None else ("", "")


def _of_pieces(pieces: tuple[Piece, ...]) -> tuple[str, str]:
    if len(pieces) == 1:
        return _of_piece(pieces[0])
    if not pieces:
        return "", ""
    return f"{_name(pieces[0])} … {_name(pieces[-1])}", f"{len(pieces)} pieces"


def _of_piece(piece: Piece) -> tuple[str, str]:
    unit = "row groups" if piece.format == "parquet" else "bytes"
    if piece.start == 0 and piece.stop is None:
        return _name(piece), "the whole file"
    return _name(piece), f"{unit} {piece.start:,} to {'the end' if piece.stop is None else f'{piece.stop:,}'}"


def _name(piece: Piece) -> str:
    return PurePosixPath(piece.url).name or piece.url
