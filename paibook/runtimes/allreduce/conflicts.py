"""Who waits where, and whether what the ranks call belongs together; pure decisions over what they say."""

from __future__ import annotations

from collections.abc import Mapping

from paibook.comms.calls import Call
from paibook.runtimes.allreduce.verdict import spell
from paibook.runtimes.allreduce.whereabouts import Whereabouts


def described(places: Mapping[int, Whereabouts]) -> str:
    """Who is where.

    >>> waiting = Whereabouts(9, Call(17, "Allreduce"))
    >>> described({0: waiting, 2: waiting, 1: Whereabouts(4)})
    'ranks 0, 2 were in Allreduce #17 (line 9); rank 1 was at line 4'
    """
    groups: dict[str, list[int]] = {}
    for rank, place in places.items():
        groups.setdefault(str(place), []).append(rank)
    return "; ".join(f"{spell(r)} {'was' if len(r) == 1 else 'were'} {place}" for place, r in groups.items())


def conflict(places: Mapping[int, Whereabouts], ended: Mapping[int, Whereabouts]) -> str | None:
    """How the ranks' collectives disagree, in words; None where they do not as far as is known.

    Args:
        places: Ranks in the middle of the cell.
        ended: Ranks whose cell has ended well.
    """
    everybody = {**places, **ended}
    found = _mismatch(everybody)
    if found is not None:
        return found
    for rank, place in places.items():
        if place.call is None or not place.call.number:
            continue
        gone = [other for other, end in ended.items() if end.count < place.call.number]
        if gone:
            counts = ", ".join(sorted({str(ended[other].count) for other in gone}))
            return (
                f"rank {rank} waits {place}, and {spell(gone)} ended the cell after {counts} "
                f"collective{'' if counts == '1' else 's'}"
            )
    return None if places else _differing_ends(ended)


def _mismatch(places: Mapping[int, Whereabouts]) -> str | None:
    by_number: dict[int, dict[int, Call]] = {}
    for rank, place in places.items():
        for call in place.recent:
            by_number.setdefault(call.number, {})[rank] = call
    for number in sorted(by_number):
        calls = by_number[number]
        first = calls[min(calls)]
        if not all(call.matches(first) for call in calls.values()):
            kinds: dict[str, list[int]] = {}
            for rank, call in sorted(calls.items()):
                kinds.setdefault(call.described(), []).append(rank)
            shown = " and ".join(f"{kind} on {spell(ranks)}" for kind, ranks in kinds.items())
            return f"collective #{number} was {shown}"
    return None


def _differing_ends(ended: Mapping[int, Whereabouts]) -> str | None:
    counts: dict[int, list[int]] = {}
    for rank, place in ended.items():
        counts.setdefault(place.count, []).append(rank)
    if len(counts) > 1:
        shown = " and ".join(f"{count} on {spell(ranks)}" for count, ranks in sorted(counts.items(), reverse=True))
        return f"the cell ended after {shown}"
    if all(place.exact for place in ended.values()) and len({place.digest for place in ended.values()}) > 1:
        first = min(place.recent[0].number for place in ended.values() if place.recent)
        return f"one of the collectives before #{first} was not the same on all"
    return None
