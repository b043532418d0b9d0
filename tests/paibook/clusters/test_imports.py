"""Which imports an interrupt waits for: those of installed libraries, not those of the user's own modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import FrameType

import pytest

from paibook.clusters import imports
from paibook.clusters.imports import library_in_import

SEEN: list[str | None] = []


def look(frame: FrameType | None = None) -> None:
    """What a module calls in the middle of its import."""
    SEEN.append(library_in_import(frame or sys._getframe()))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules, of which those in ``site`` count as installed."""
    monkeypatch.setattr(imports, "_LIBRARIES", (str(tmp_path / "site"),))
    monkeypatch.setitem(sys.modules, "looking", sys.modules[__name__])
    for folder in ("site", "own"):
        (tmp_path / folder).mkdir()
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    SEEN.clear()
    return tmp_path


def test_an_installed_library_is_named_by_its_first_part(packages: Path) -> None:
    (packages / "site" / "lib_a").mkdir()
    (packages / "site" / "lib_a" / "__init__.py").write_text("import looking; looking.look(); import lib_a.part")
    (packages / "site" / "lib_a" / "part.py").write_text("import looking; looking.look()")
    (packages / "own" / "own_a.py").write_text(
        "import looking; looking.look(); import lib_a; looking.look(); call = looking.look"
    )
    module = importlib.import_module("own_a")
    assert SEEN == [None, "lib_a", "lib_a", None]
    module.call()
    assert SEEN[-1] is None


def test_what_a_library_does_once_it_is_imported_is_no_import(packages: Path) -> None:
    (packages / "site" / "lib_b.py").write_text("import looking\ndef run(): looking.look()")
    importlib.import_module("lib_b").run()
    assert SEEN == [None]


def test_a_library_is_imported_until_the_importer_has_put_it_in_its_place(packages: Path) -> None:
    """Interrupted there, its code has run and Python forgets that it has."""
    (packages / "site" / "lib_c").mkdir()
    (packages / "site" / "lib_c" / "__init__.py").write_text("value = 1")
    (packages / "site" / "lib_c" / "part.py").write_text("value = 1")
    inside = []

    def see(frame: FrameType, event: str, argument: object) -> None:
        if {"lib_c", "lib_c.part"} & sys.modules.keys() and frame.f_code.co_filename.startswith("<frozen importlib"):
            inside.append((frame.f_code.co_name, event, library_in_import(frame)))

    sys.setprofile(see)
    try:
        importlib.import_module("lib_c.part")
    finally:
        sys.setprofile(None)
    places = {(name, event): found for name, event, found in inside}
    assert places["_load_unlocked", "return"] == places["_find_and_load_unlocked", "return"] == "lib_c"
    assert places["_find_and_load", "return"] is None
