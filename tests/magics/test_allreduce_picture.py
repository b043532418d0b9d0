"""The picture of an all-reduce run: what it shows, as HTML and as text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from paibook.comms.paths import allreduce_paths
from paibook.runtimes.contract import Progress
from paibook_magics import progress as progress_module
from paibook_magics.allreduce_picture import allreduce_bundle, allreduce_line, allreduce_summary, allreduce_text
from paibook_magics.pictures import drawn
from paibook_magics.progress import ProgressDisplay


def rank(which: int, **changes: Any) -> dict[str, Any]:
    state = {
        "rank": which, "state": "waiting", "line": 9, "call": "Allreduce of 10 float32 (SUM)", "number": 3,
        "seconds": 1.5, "operations": 5, "messages": 0, "sent": 0, "written": 1_000_000, "read": 2_000_000, "handed": 0,
        "library_seconds": 0.0, "waited": 0.25,
    }  # fmt: skip
    return {**state, **changes}


def picture(**changes: Any) -> dict[str, Any]:
    how = changes.get("how", "shared")
    return {
        "model": "allreduce",
        "seconds": 5.31,
        "how": how,
        "hosts": [["here", [0, 1, 2]]],
        "paths": [list(path) for path in allreduce_paths(how)],
        "ranks": [rank(0), rank(1, state="computing", line=7, call=None, number=0, seconds=0.0), rank(2, messages=2)],
        "waits": [[0, 1], [2, 1]],
        "links": [[2, 0, 2, 500]],
        "operations": {"Allreduce": {"count": 3, "bytes": 120}, "send": {"count": 2, "bytes": None}},
        "torch": 0,
        "lines": {},
        **changes,
    }


class Balanced(HTMLParser):
    """Checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)


def elements(html: str) -> list[str]:
    parser = Balanced()
    parser.feed(html)
    assert not parser.open
    return parser.seen


def test_it_draws_ranks_memory_messages_and_waits() -> None:
    html = drawn(picture())["text/html"]
    seen = elements(html)
    assert seen.count("circle") == 3
    assert seen.count("line") == 3  # to the memory
    assert seen.count("path") == 3  # two waits and a link
    for text in (
        "rank 0 waits for rank 1",
        "rank 2 to rank 0: 2 messages, 500 B",
        "rank 0 has written 1.0 MB",
        "shared memory",
        "line 9 · 1.5 s",
        "ranks 0, 2 wait in Allreduce #3 for rank 1, which computes, line 7 · 1.5 s",
        "Allreduce 3 (120 B a rank) · send 2",
        "all-reduce up to 262 kB: ",
    ):
        assert text in html


def test_the_text_says_the_same() -> None:
    assert allreduce_text(picture(), "failed after 6 s").splitlines()[:7] == [
        "5 operations · 3 ranks in shared memory · 3.0 MB · 5.3 s",
        "ranks 0, 2 wait in Allreduce #3 for rank 1, which computes, line 7 · 1.5 s",
        "rank 0  waits in Allreduce #3, line 9  operations 5, written 1.0 MB, read 2.0 MB, waited 1.8 s",
        "rank 1  computes, line 7  operations 5, written 1.0 MB, read 2.0 MB, waited 0.2 s",
        "rank 2  waits in Allreduce #3, line 9  operations 5, written 1.0 MB, read 2.0 MB, messages 2, waited 1.8 s",
        "rank 2 to rank 0: 2 messages, 500 B",
        "Allreduce 3 (120 B a rank) · send 2",
    ]
    assert allreduce_text(picture(), "failed after 6 s").endswith("failed after 6 s")


@pytest.mark.parametrize("how", ["gloo", "mpi", "nccl"])
def test_a_library_that_hides_its_links_is_said_to(how: str) -> None:
    ranks = [rank(n, written=0, read=0, handed=400, library_seconds=2.0, waited=0.0) for n in range(3)]
    html = allreduce_bundle(picture(how=how, ranks=ranks, waits=[], links=[]))["text/html"]
    assert "does not tell which rank sends to which" in html
    assert "path" not in elements(html)
    assert "has given it 400 B" in html


def test_ranks_of_several_hosts_lie_around_their_own_memory() -> None:
    hosts = [["a", [0, 1]], ["b", [2]]]
    html = allreduce_bundle(picture(how="hierarchical", hosts=hosts))["text/html"]
    assert "memory of a" in html
    assert "memory of b" in html
    assert elements(html).count("rect") == 3


def test_a_lost_rank_is_not_like_the_others() -> None:
    ranks = [rank(0, state="stopped"), rank(1, state="lost", call=None), rank(2, state="stopped")]
    html = allreduce_bundle(picture(ranks=ranks))["text/html"]
    assert "ranks 0, 2 waited in Allreduce #3 for rank 1, which was lost, line 9" in html
    assert "rank 1 was lost, line 9</title>" in html


@pytest.mark.parametrize("size", [1, 2, 5, 16, 40])
def test_any_number_of_ranks_can_be_drawn(size: int) -> None:
    ranks = [rank(number, state="communicating") for number in range(size)]
    many = picture(ranks=ranks, hosts=[["here", list(range(size))]], waits=[], links=[])
    html = allreduce_bundle(many)["text/html"]
    assert elements(html).count("circle") == min(size, 32)
    assert ("8 more ranks" in html) == (size == 40)
    assert len(html) < 40_000


def test_names_are_no_markup() -> None:
    odd = picture(how="hierarchical", hosts=[["<b>", [0, 1, 2]]], operations={"<i>": {"count": 1, "bytes": None}})
    assert not {"b", "i"} & set(elements(allreduce_bundle(odd)["text/html"]))


def test_torchs_own_collectives_are_counted() -> None:
    by_torch = picture(torch=12, operations={}, links=[], waits=[])
    assert "12 collectives by torch.distributed" in allreduce_text(by_torch)
    assert allreduce_line(by_torch).startswith("17 operations")


def test_a_run_leaves_a_line_that_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Handle:
        def update(self, bundle: Any, raw: bool) -> None:
            shown.append(bundle)

    monkeypatch.setattr(progress_module, "display", lambda bundle, **options: shown.append(bundle) or Handle())
    told = ProgressDisplay(after=0.0)
    told.update(Progress("cell", 0, 3, "ranks", picture=picture()))
    told.tick()
    assert "<svg" in shown[-1]["text/html"]
    told.finish("done", picture())
    assert "<details open>" in shown[-1]["text/html"]
    assert "<details>" in allreduce_summary(picture(), opened=False)["text/html"]
    failed = ProgressDisplay(after=0.0)
    failed.update(Progress("cell", 0, 3, "ranks", picture=picture()))
    failed.tick()
    failed.finish("failed")
    assert "failed after" in shown[-1]["text/html"]
