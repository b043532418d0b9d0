"""Files as records: a document's text, a file's bytes, a picture's pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy

from paibook.data.batch import Batch
from paibook.data.formats import open_bytes
from paibook.data.lines import decoded, without_mark
from paibook.errors import DataError

_AS_THEY_ARE = ("L", "RGB", "RGBA")  # Pillow's modes with 8 bits a channel
_CONVERTED = {"1": "L", "LA": "RGBA", "PA": "RGBA", "La": "RGBA", "RGBa": "RGBA"}


def document_batches(url: str) -> Iterator[Batch]:
    """A whole file as one record ``{"path": str, "text": str}``.

    Raises:
        DataError: Bytes that are not UTF-8; names the file and the line.
    """
    content = without_mark(url, _content(url))
    yield Batch([{"path": url, "text": decoded(content, url, 0)}], lambda index: url)


def binary_batches(url: str) -> Iterator[Batch]:
    """A whole file as one record ``{"path": str, "bytes": bytes}``."""
    yield Batch([{"path": url, "bytes": _content(url)}], lambda index: url)


def image_batches(url: str) -> Iterator[Batch]:
    """A picture as one record ``{"path": str, "image": array}``, of height x width x channels, uint8.

    One channel is grey, three are red, green, blue; the fourth is opacity. Of an animation it is the first frame.

    Raises:
        DataError: It is no picture that Pillow reads, or Pillow is not installed.
    """
    yield Batch([{"path": url, "image": _pixels(url)}], lambda index: url)


def _pixels(url: str) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            f"cannot read {url} as image: Pillow is missing; install with `pip install 'paibook[images]'`, or read the "
            "file's bytes with the format 'binary'"
        ) from error
    content = _content(url)
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode = image.mode
            if mode.startswith(("I", "F")):
                raise DataError(
                    f"cannot read {url} as image: it has more than 8 bits a channel; use the format 'binary'"
                )
            if mode not in _AS_THEY_ARE:
                mode = _CONVERTED.get(mode, "RGBA" if "transparency" in image.info else "RGB")
            pixels = numpy.array(image if mode == image.mode else image.convert(mode))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's own choice of errors
        raise DataError(f"cannot read {url} as image: {error}") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, numpy.newaxis]


def _content(url: str) -> bytes:
    with open_bytes(url) as file:
        content: bytes = file.read()
        return content
