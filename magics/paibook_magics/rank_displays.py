"""What ranks display: shown under their label, replaced and cleared as they say."""

from __future__ import annotations

import time
import uuid
from typing import Any

from IPython.display import display, update_display

DRAW_SECONDS = 0.2
SHOWN_CHARACTERS = 20_000_000
LEAST_CHARACTERS = 20_000  # what an output costs the page, however small

Bundle = dict[str, Any]


class RankDisplays:
    """Shows displays in the running cell; a rank's own display ids are told apart by its label."""

    def __init__(self) -> None:
        self._room = SHOWN_CHARACTERS
        self._drawn = 0.0
        self._names: dict[tuple[str, str], str | None] = {}
        self._shown: dict[str, list[str]] = {}
        self._cleared: dict[str, list[str]] = {}
        self._waiting: dict[str, tuple[Bundle, Bundle]] = {}

    def show(self, label: str, bundle: Bundle, metadata: Bundle, display_id: str = "") -> None:
        """Show a bundle, in the place of one its rank has cleared if there is one."""
        if self._cleared.get(label):
            place = self._cleared[label].pop(0)
            self._waiting |= {left: ({}, {}) for left in self._cleared[label]}
            self._waiting[place] = (labelled(label, bundle), metadata)
        elif not self._fits(bundle):
            return
        else:
            place = _place(label, display_id)
            if not is_text(bundle):
                print(label.strip())
            display(labelled(label, bundle), raw=True, metadata=metadata, display_id=place)
        self._shown.setdefault(label, []).append(place)
        if display_id:
            self._names[label, display_id] = place

    def update(self, label: str, bundle: Bundle, metadata: Bundle, display_id: str) -> None:
        """Replace what a rank displayed under an id, also in an earlier cell."""
        place = self._names.get((label, display_id), _place(label, display_id))
        if place is not None:  # None: its rank has cleared it
            self._waiting[place] = (labelled(label, bundle), metadata)

    def clear(self, label: str, wait: bool) -> None:
        """Give up the places of what a rank displayed: at once, or with ``wait`` when it displays something new."""
        places = self._shown.pop(label, [])
        self._names |= {name: None for name, place in self._names.items() if place in places}
        if not wait:
            self._waiting.update({place: ({}, {}) for place in places})
        self._cleared.setdefault(label, [])[:0] = places

    def tick(self, final: bool = False) -> None:
        """Draw what has been replaced, at most five times a second: of several states the last counts."""
        now = time.monotonic()
        if self._waiting and (final or now - self._drawn >= DRAW_SECONDS):
            self._drawn = now
            for place, (bundle, metadata) in self._waiting.items():
                update_display(bundle, raw=True, metadata=metadata, display_id=place)
            self._waiting.clear()

    def _fits(self, bundle: Bundle) -> bool:
        had = self._room > 0
        self._room -= max(LEAST_CHARACTERS, sum(len(str(data)) for data in bundle.values()))
        if had and self._room <= 0:
            print("… further displays of this cell are not shown")
        return self._room > 0


def is_text(bundle: Bundle) -> bool:
    """Whether plain text is all there is."""
    return all(mime == "text/plain" for mime in bundle)


def labelled(label: str, bundle: Bundle) -> Bundle:
    """The bundle with its rank in front, where it is plain text."""
    if not is_text(bundle):
        return bundle
    text = str(bundle.get("text/plain", ""))
    return {"text/plain": f"{label}{text}" if "\n" not in text else f"{label.strip()}\n{text}"}


def _place(label: str, display_id: str) -> str:
    # The same in every cell, so that a later cell's update finds it.
    return f"paibook {label.strip()} {display_id or uuid.uuid4().hex}"
