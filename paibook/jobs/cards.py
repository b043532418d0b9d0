"""The cards of a job: taken in the lease book before its kernel starts, and the kernel's until it ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from paibook.errors import NoGPU, PlanError
from paibook.gpus import WHOLE, Device, Holder, LeaseBook, absent, choose, discover, environment_of
from paibook.gpus.leases import KERNEL_LEASE
from paibook.jobs.job import Job

LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class HeldCards:
    """What a job holds.

    Attributes:
        lease: Its id in the lease book, or empty where it holds nothing.
        devices: The cards.
    """

    lease: str = ""
    devices: tuple[Device, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which the kernel sees these cards only, and its ranks take them as parts of its own."""
        return {**environment_of(self.devices), KERNEL_LEASE: self.lease} if self.lease else {}

    def hand_over(self, pid: int | None) -> None:
        """Make the kernel the holder: however it ends, the cards are free."""
        if self.lease and pid is not None:
            LeaseBook().hand_over(self.lease, pid)


@asynccontextmanager
async def held_cards(job: Job, on_wait: Callable[[str], None]) -> AsyncIterator[HeldCards]:
    """The cards that a job's own cluster needs, waited for while others hold them.

    Args:
        on_wait: Called with the reason for the wait, and once with an empty text when it is over.

    Raises:
        NoGPU: This machine has none, and the job has no ``cpu_fallback``.
        PlanError: This machine has too few, or not those that are named.
    """
    held = await _taken(job, on_wait) if job.resources.gpus_per_worker and job.own_cluster else HeldCards()
    try:
        yield held
    finally:
        if held.lease:
            await asyncio.to_thread(LeaseBook().give_back, held.lease)


async def _taken(job: Job, on_wait: Callable[[str], None]) -> HeldCards:
    devices = await asyncio.to_thread(discover)
    count, share = needed(job)
    if not devices:
        if job.resources.cpu_fallback:
            return HeldCards()
        what = f"{count} {'GPU' if count == 1 else 'GPUs'}"
        raise NoGPU(f"job {job.name!r} asks for {what}: {absent()}; with --cpu-fallback it runs on the CPU")
    wanted = _named(job, devices)
    choose(wanted, [], count, share)  # refuses what waiting would not bring about
    holder, waits = Holder.of("job", job.name), ""
    while True:
        try:
            taken = await asyncio.to_thread(LeaseBook().take, wanted, holder, count, share)
        except PlanError as error:
            if str(error) != waits:
                waits = str(error)
                on_wait(waits)
            await asyncio.sleep(LOOK_SECONDS)
            continue
        if waits:
            on_wait("")
        by_uuid = {device.uuid: device for device in wanted}
        return HeldCards(taken[0].id, tuple(by_uuid[lease.card] for lease in taken))


def needed(job: Job) -> tuple[int, int]:
    """How many different cards a job's workers need, and what share of each in percent.

    Workers with a share of a card lie together on as few cards as hold them.
    """
    asked, workers = job.resources, max(1, job.resources.workers)
    if asked.cards:
        times = Counter(asked.cards)
        return len(times), min(WHOLE, asked.gpu_share * max(times.values()))
    together = min(workers, WHOLE // asked.gpu_share)
    return -(-workers // together) * asked.gpus_per_worker, asked.gpu_share * together


def _named(job: Job, devices: Sequence[Device]) -> list[Device]:
    if not job.resources.cards:
        return list(devices)
    there = {device.label: device for device in devices}
    if missing := sorted(set(job.resources.cards) - set(there)):
        raise PlanError(f"job {job.name!r} asks for GPU {missing[0]}; there are {', '.join(there)}")
    return [there[label] for label in dict.fromkeys(job.resources.cards)]
