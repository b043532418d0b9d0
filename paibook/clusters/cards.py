"""Which new rank gets which card of its host, as pure decisions over what each host says."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from paibook.errors import PlanError
from paibook.gpus import Device, Holder, Lease, Policy, assign, choose, room
from paibook.resources import WHOLE, CardChoice


@dataclass(frozen=True)
class CardSurvey:
    """A host's cards, and the leases on them by kernels, ranks and jobs of every session."""

    host: str
    devices: Sequence[Device]
    leases: Sequence[Lease]


@dataclass(frozen=True)
class NewRank:
    """A rank that needs cards: its engine's id, the address of its worker, and its rank."""

    id: int
    worker: str
    rank: int


def deal_cards(
    surveys: Mapping[str, CardSurvey],
    ranks: Sequence[NewRank],
    per_rank: int,
    returned: Collection[int] = (),
    choice: CardChoice = CardChoice(),
    policy: Policy = "spread",
    within: str = "",
) -> dict[int, list[Device]]:
    """Give new ranks cards of their hosts that have room; workers of one host see the same cards.

    Args:
        surveys: What each worker says, by address.
        ranks: Those that need some.
        per_rank: Cards for each.
        returned: Process ids of ranks whose cards count as free.
        choice: How much of each card, and which cards.
        policy: Where ranks share cards: the emptiest first, or the fullest.
        within: Id of the lease of the notebook's kernel: its cards are its ranks' to use.

    Raises:
        NoGPU: A host has no card at all.
        PlanError: A host has too few; says how many are there, who holds them and what was asked for.
    """
    cards: dict[int, list[Device]] = {}
    for host in sorted({surveys[rank.worker].host for rank in ranks}):
        here = [rank for rank in ranks if surveys[rank.worker].host == host]
        survey = _without(surveys, host, returned)
        if not survey.devices:
            assign([], len(here), per_rank)
        elif choice.labels:
            cards |= _chosen(survey, here, per_rank, choice, within)
        elif choice.share == WHOLE:
            cards |= _whole(survey, here, per_rank, within)
        else:
            cards |= _shared(survey, here, per_rank, choice.share, policy, within)
    return cards


def ranks_that_fit(
    surveys: Mapping[str, CardSurvey], worker: str, per_rank: int, share: int = WHOLE, within: str = ""
) -> int:
    """How many ranks the cards of a worker's host suffice for."""
    survey = _without(surveys, surveys[worker].host)
    parts = sum(room(device.uuid, survey.leases, within) // share for device in survey.devices)
    return parts // per_rank


def _without(surveys: Mapping[str, CardSurvey], host: str, returned: Collection[int] = ()) -> CardSurvey:
    here = next(survey for survey in surveys.values() if survey.host == host)
    return CardSurvey(host, here.devices, [lease for lease in here.leases if lease.holder.pid not in returned])


def _whole(survey: CardSurvey, ranks: Sequence[NewRank], per_rank: int, within: str) -> dict[int, list[Device]]:
    own = {lease.card for lease in survey.leases if within and lease.id == within}
    free = [device for device in survey.devices if room(device.uuid, survey.leases, within) == WHOLE]
    free.sort(key=lambda device: device.uuid not in own)
    try:
        dealt = assign(free, len(ranks), per_rank)
    except PlanError as error:
        held = len(survey.devices) - len(free)
        if not held:
            raise
        holders = ", ".join(dict.fromkeys(str(lease.holder) for lease in survey.leases if lease.id != within))
        raise PlanError(
            f"{held} of the GPUs of {survey.host} are held: by {holders}. Of those left: {error}. "
            "`%pai_cluster restart` frees those of this notebook's ranks, `%pai_gpus` shows all"
        ) from error
    return {ranks[number].id: mine for number, mine in dealt.items()}


def _shared(
    survey: CardSurvey, ranks: Sequence[NewRank], per_rank: int, share: int, policy: Policy, within: str
) -> dict[int, list[Device]]:
    leases = list(survey.leases)
    cards = {}
    for rank in ranks:
        cards[rank.id] = choose(survey.devices, leases, per_rank, share, policy, within)
        leases += _supposed(cards[rank.id], leases, share, within)
    return cards


def _chosen(
    survey: CardSurvey, ranks: Sequence[NewRank], per_rank: int, choice: CardChoice, within: str
) -> dict[int, list[Device]]:
    by_label = {device.label: device for device in survey.devices}
    leases = list(survey.leases)
    cards = {}
    for rank in ranks:
        labels = choice.of_rank(rank.rank, per_rank)
        if missing := [label for label in labels if label not in by_label]:
            there = ", ".join(by_label)
            raise PlanError(f"--cards: there is no GPU {missing[0]} on {survey.host}; there are {there}")
        wanted = [by_label[label] for label in labels]
        cards[rank.id] = choose(wanted, leases, len(wanted), choice.share, "spread", within)
        leases += _supposed(wanted, leases, choice.share, within)
    return cards


def _supposed(devices: Sequence[Device], leases: Sequence[Lease], share: int, within: str) -> list[Lease]:
    """The leases that ranks dealt to before will have."""
    own = {lease.card for lease in leases if within and lease.id == within}
    holder = Holder("rank", "of this cell", 0, 0.0)
    grant = secrets.token_hex(8)
    return [Lease(grant, device.uuid, share, holder, 0.0, within if device.uuid in own else "") for device in devices]
