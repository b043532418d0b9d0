"""Who says what a cell shows: the ``[rank 0] `` in front of lines and displays."""

from __future__ import annotations

from typing import Any

from paibook.clusters.contract import Event


def label_of(event: Event) -> str:
    """Who says it, as shown in front of each line."""
    if event.rank < 0:
        return f"[{event.source}] "
    return f"[rank {event.rank}] " if event.source == "worker" else f"[{event.source} {event.rank}] "


def label_order(label: str) -> tuple[str, int]:
    """A key that sorts labels by who, then by number: rank 10 after rank 9."""
    return label.split()[0], _number(label)


def merge_equal(results: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Join the labels of ranks whose last expressions look the same: ``[ranks 0-3]``."""
    groups: list[tuple[list[str], dict[str, Any]]] = []
    for label in sorted(results, key=_number):
        for labels, bundle in groups:
            if bundle == results[label]:
                labels.append(label)
                break
        else:
            groups.append(([label], results[label]))
    return [(joined(labels), bundle) for labels, bundle in groups]


def ranges(numbers: list[int]) -> str:
    """Numbers in words: ``0-2, 5``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def joined(labels: list[str]) -> str:
    """The label of several ranks: ``[ranks 0-2, 5] ``."""
    return labels[0] if len(labels) == 1 else f"[ranks {ranges([_number(label) for label in labels])}] "


def _number(label: str) -> int:
    number = label.strip(" []").rpartition(" ")[2]
    return int(number) if number.isdigit() else -1
