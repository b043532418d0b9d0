"""The panel of this machine's GPUs: memory and load, who holds them, and which rank is to have which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import traitlets

from paibook.gpus import WHOLE, Lease, LeaseBook, Reading, absent, readings, room
from paibook.widgets.live_panel import STATIC, LivePanel, gib, table_bundle

COLUMNS = ("GPU", "name", "memory used", "of", "load", "held by", "processes")


class GpuPanel(LivePanel):
    """Cards with memory and load, and the ranks' picks among them.

    ``picks`` has the labels of each rank's cards, rank 0 first; the page sets it. ``words`` are the options of a
    ``%%pai_*`` cell that say the same, which the page writes into a cell.
    """

    _esm = STATIC / "gpus.js"

    picks: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    words = traitlets.Unicode("").tag(sync=True)

    def __init__(self) -> None:
        self._known: dict[str, Reading] = {}
        super().__init__()

    def look(self) -> dict[str, Any]:
        now = readings()
        for uuid, reading in self._known.items():
            self._known[uuid] = replace(reading, gone=True)
        self._known |= {reading.device.uuid: reading for reading in now}
        leases = LeaseBook().held() if self._known else []
        cards = [_card(reading, leases) for reading in sorted(self._known.values(), key=_place)]
        return {"cards": cards, "absent": "" if cards else absent()}

    def static(self) -> dict[str, str]:
        cards = self.state["cards"]
        rows = [
            (
                card["label"],
                card["name"] + (" (no longer answers)" if card["gone"] else ""),
                gib(card["used"]),
                gib(card["total"]),
                "" if card["load"] is None else f"{card['load']}%",
                ", ".join(card["holders"]) or "nobody",
                str(card["processes"]),
            )
            for card in cards
        ]
        return table_bundle(self.state["absent"] or f"{len(cards)} GPU{'s' * (len(cards) != 1)}", COLUMNS, rows)

    @traitlets.observe("picks")
    def _spell(self, change: Any) -> None:
        self.words = option_words(change["new"])


def option_words(picks: Sequence[Sequence[str]]) -> str:
    """The options that give each rank its cards; empty where ranks have different numbers of them, or none.

    >>> option_words([["0"], ["1"]]), option_words([["0", "1"], ["2"]])
    ('-n 2 -g 1 --cards 0,1', '')
    """
    counts = {len(set(cards)) for cards in picks}
    if len(counts) != 1 or counts == {0}:
        return ""
    return f"-n {len(picks)} -g {counts.pop()} --cards {','.join(card for cards in picks for card in cards)}"


def _place(reading: Reading) -> tuple[int, int]:
    return reading.device.index, reading.device.slice or 0


def _card(reading: Reading, leases: Sequence[Lease]) -> dict[str, Any]:
    device = reading.device
    mine = [lease for lease in leases if lease.card == device.uuid]
    return {
        "label": device.label,
        "name": device.name,
        "total": device.memory,
        "used": None if reading.gone else reading.used,
        "load": None if reading.gone else reading.load,
        "gone": reading.gone,
        "processes": len(reading.processes),
        "free": room(device.uuid, leases),
        "holders": [str(lease.holder) + (f", {lease.share}%" if lease.share < WHOLE else "") for lease in mine],
    }
