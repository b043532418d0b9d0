"""A growing file of lines, read as it grows: the run log, written by one process and followed by another."""

from __future__ import annotations

from pathlib import Path

CHUNK = 4_000_000  # bytes read at a time


class LineTail:
    """The lines of a file that only grows.

    Args:
        path: It need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self, most: int = CHUNK) -> list[str]:
        """The next whole lines, of about ``most`` bytes; a last line that is still being written comes later."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                block = file.read(most)
                if block and b"\n" not in block:
                    block += file.readline()  # one line longer than that
        except FileNotFoundError:
            return []
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode("utf-8", errors="replace").splitlines()
