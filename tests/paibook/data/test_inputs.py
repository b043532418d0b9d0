"""Paths, globs and folders, and what is said when they lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from paibook.data.inputs import find_files
from paibook.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.txt", "deep/c.txt", ".hidden.txt", "_SUCCESS", "deep/.git/config", "d[1].txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(tree: Path, pattern: str) -> list[str]:
    return [str(Path(file.url).relative_to(tree)) for file in find_files(f"{tree}/{pattern}")]


def test_a_glob_gives_files_in_order(tree: Path) -> None:
    assert names(tree, "[ab].txt") == ["a.txt", "b.txt"]
    assert names(tree, "**/c.txt") == ["deep/c.txt"]


def test_a_folder_gives_its_visible_files_at_any_depth(tree: Path) -> None:
    assert names(tree, "") == ["a.txt", "b.txt", "d[1].txt", "deep/c.txt"]


def test_a_name_with_brackets_is_itself_first(tree: Path) -> None:
    assert names(tree, "d[1].txt") == ["d[1].txt"]


def test_a_file_knows_its_size(tree: Path) -> None:
    assert find_files(str(tree / "a.txt"))[0].size == 5


def test_relative_paths_become_absolute(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert find_files("*.txt")[0].url == str(tree / "a.txt")


def test_a_glob_without_match_names_pattern_and_folder(tree: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_files(f"{tree}/deep/*.csv")
    assert "deep/*.csv" in str(caught.value)
    assert f"looked for in {tree}/deep" in str(caught.value)


def test_a_missing_folder_is_said_to_be_missing(tree: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere, which does not exist"):
        find_files(f"{tree}/nowhere/x.txt")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder without files"):
        find_files(str(tmp_path))


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(DataError, match="cannot look for the input 'gopher://x/y'"):
        find_files("gopher://x/y")
