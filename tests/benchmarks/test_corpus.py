"""The corpus: every line of the sources once, in files of about equal size."""

import gzip
from pathlib import Path

import pytest

from benchmarks.corpus import FILES, SOURCES, corpus_files


def test_every_line_is_there_once_in_files_of_about_equal_size(tmp_path: Path):
    lines = [b'{"id": "%03d", "text": "%s"}\n' % (i, b"word " * (i % 7)) for i in range(300)]
    for number, source in enumerate(SOURCES):
        with gzip.open(tmp_path / source, "wb") as file:
            file.writelines(lines[number :: len(SOURCES)])
    files = corpus_files(tmp_path, tmp_path / "cache" / "corpus")
    assert len(files) == FILES
    assert sorted(line for file in files for line in file.read_bytes().splitlines(True)) == sorted(lines)
    sizes = [file.stat().st_size for file in files]
    assert max(sizes) - min(sizes) <= max(map(len, lines))


def test_a_missing_source_leaves_no_cache_behind(tmp_path: Path):
    cache = tmp_path / "cache" / "corpus"
    with pytest.raises(FileNotFoundError):
        corpus_files(tmp_path, cache)
    assert list(cache.parent.iterdir()) == []
