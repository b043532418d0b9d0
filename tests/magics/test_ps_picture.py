"""The picture of a parameter-server run: what it shows, as HTML and as text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from paibook.runtimes.contract import Progress
from paibook_magics import progress as progress_module
from paibook_magics.progress import ProgressDisplay
from paibook_magics.ps_picture import is_ps, ps_bundle, ps_summary, ps_text

ON_DISK = {"rows_on_disk": 9, "bytes_on_disk": 700}


def picture(**changes: Any) -> dict[str, Any]:
    server = {
        "rank": 0, "primary": [0], "copies": [1], "rows": 1200, "rows_on_disk": 0, "bytes": 34_000, "bytes_on_disk": 0,
        "process_bytes": 2e8, "pulls_per_second": 48.2, "pushes_per_second": 7.0, "bytes_per_second": 821_000.0,
    }  # fmt: skip
    return {
        "model": "ps",
        "clock": 32,
        "seconds": 3.21,
        "consistency": "ssp",
        "staleness_bound": 3,
        "workers": [{"rank": 0, "clock": 32, "state": "training"}, {"rank": 1, "clock": 35, "state": "waiting"}],
        "servers": [
            server,
            {**server, "rank": 1, "primary": [1], "copies": [], "rows_on_disk": 9, "bytes_on_disk": 700},
        ],
        "traffic": [[0, 0, 100.0], [1, 0, 25.0], [0, 1, 0.0], [1, 9, 5.0]],
        "tables": [{"name": "w", "rows": 2400, "bytes": 9600}],
        "pulls": 100,
        "pushes": 1200,
        "staleness": {"w": {"0": 50, "2": 50}, "d": {"0": 9}},
        "hot": [["w", 67, 0.025], ["w", 5, 0.015]],
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


def test_it_draws_workers_servers_and_what_flows() -> None:
    html = ps_bundle(picture())["text/html"]
    seen = elements(html)
    assert seen.count("circle") == 2
    assert seen.count("path") == 2  # no line where nothing flows, none to a server that is not there
    for text in (
        "worker 1 waits at clock 35",
        "partitions 1",
        "700 B on disk",
        "821 kB/s",
        "clocks in which nobody has",
    ):
        assert text in html
    assert "staleness of &#x27;w&#x27;, clocks: 1 on average (0: 50 % · 2: 50 %)" in html
    assert "staleness of &#x27;d&#x27;" not in html
    assert "hot keys: w[67] 2.5 %" in html
    assert "w[5]" not in html  # a key like any other


def test_the_text_says_the_same() -> None:
    assert ps_text(picture(), "failed after 4 s").splitlines() == [
        "32 clocks · 2 workers, 2 servers · 2,400 rows, 9.6 kB · 100 pulls, 1,200 pushes · 3.2 s",
        "worker 0  clock 32",
        "worker 1  clock 35  waits",
        "server 0  1,200 rows, 34 kB  48 pulls/s, 7 pushes/s, 821 kB/s",
        "server 1  1,200 rows, 34 kB, 700 B on disk  48 pulls/s, 7 pushes/s, 821 kB/s",
        "staleness of 'w', clocks: 1 on average (0: 50 % · 2: 50 %)",
        "hot keys: w[67] 2.5 %",
        "failed after 4 s",
    ]


def test_before_there_is_anything_it_is_drawn_all_the_same() -> None:
    nothing = picture(servers=[], traffic=[], tables=[], staleness={}, hot=[], staleness_bound=None, clock=0)
    nothing["workers"] = [{"rank": 0, "clock": 0, "state": "training"}]
    assert elements(ps_bundle(nothing)["text/html"]).count("circle") == 1


def test_names_are_no_markup() -> None:
    odd = picture(staleness={"<b>": {"3": 1}}, hot=[["<i>", 1, 0.9]], tables=[{"name": "<i>", "rows": 9, "bytes": 1}])
    assert not {"b", "i"} & set(elements(ps_bundle(odd)["text/html"]))


def test_a_run_leaves_a_line_that_opens(monkeypatch: Any) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(progress_module, "display", lambda bundle, **options: shown.append(bundle) or Handle(shown))
    told = ProgressDisplay(after=0.0)
    told.update(Progress("train", 3, None, "clocks", picture=picture()))
    told.tick()
    assert "<svg" in shown[-1]["text/html"]
    told.update(Progress("train", 4, None, "clocks"))  # the clocks alone: the picture stays
    told.finish("done", json.loads(json.dumps(picture())))
    assert "<details open>" in shown[-1]["text/html"]
    assert shown[-1]["text/plain"].startswith("32 clocks")
    assert "<details>" in ps_summary(picture(), opened=False)["text/html"]
    failed = ProgressDisplay(after=0.0)
    failed.update(Progress("train", 3, None, "clocks", picture=picture()))
    failed.tick()
    failed.finish("failed")
    assert "failed after" in shown[-1]["text/html"]
    assert not is_ps({"stages": []})


class Handle:
    """What ``display`` gives back."""

    def __init__(self, shown: list[Any]) -> None:
        self._shown = shown

    def update(self, bundle: Any, raw: bool) -> None:
        self._shown.append(bundle)
