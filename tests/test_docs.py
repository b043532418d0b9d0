"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paibook.comms import Communicator
from paibook_magics.options import parser

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAGICS = ("pai_mapreduce", "pai_allreduce", "pai_ps")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", document.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_that_are_named_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", document.read_text())) <= targets


@pytest.mark.parametrize("magic", MAGICS)
def test_every_option_of_the_grammar_is_documented(magic: str) -> None:
    text = (ROOT / "docs" / "magics.md").read_text()
    options = {option for action in parser(magic)._actions for option in action.option_strings}
    assert sorted(option for option in options if f"`{option}" not in text) == []


def test_every_operation_of_comm_is_documented() -> None:
    text = (ROOT / "docs" / "allreduce.md").read_text()
    inside = {"Create_intercomm", "abort", "context", "steps"}  # refusals, and what cells do not call
    names = {name for name in dir(Communicator) if not name.startswith("_")} - inside
    assert sorted(name for name in names if not re.search(rf"[`.]{name}\b", text)) == []


def test_the_cells_shown_parse() -> None:
    text = (ROOT / "docs" / "magics.md").read_text() + (ROOT / "README.md").read_text()
    lines = re.findall(r"^%%(pai_\w+) (.*)$", text, re.MULTILINE)
    assert {magic for magic, _ in lines} == set(MAGICS)
    for magic, line in lines:
        parser(magic).parse_line(line)
