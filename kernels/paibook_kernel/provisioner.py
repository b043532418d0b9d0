"""The kernel provisioner: a kernel whose spec asks for GPUs holds them, in the lease book, from its start to its end.

In ``kernel.json``::

    "metadata": {"kernel_provisioner": {"provisioner_name": "paibook-gpu", "config": {"gpus": 1}}}

What a provisioner is: https://jupyter-client.readthedocs.io/en/stable/provisioning.html
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from jupyter_client.provisioning import LocalProvisioner
from traitlets import Bool, Enum, Int, List, Unicode

from paibook.errors import NoGPU, PlanError
from paibook.gpus import Device, Holder, LeaseBook, Policy, absent, discover, environment_of
from paibook.gpus.leases import KERNEL_LEASE
from paibook.resources import WHOLE


class GpuProvisioner(LocalProvisioner):
    """Starts a kernel on this machine with GPUs of its own; one that asks for none is started as ever."""

    gpus = Int(0, min=0, help="Cards for the kernel.").tag(config=True)
    share = Int(WHOLE, min=1, max=WHOLE, help="Percent of each card.").tag(config=True)
    cards = List(Unicode(), help="Their numbers, as %pai_gpus shows them; any that are free.").tag(config=True)
    policy = Enum(["pack", "spread"], "pack", help="Which of those that have room.").tag(config=True)
    cpu_fallback = Bool(False, help="Start without where this machine has no GPU.").tag(config=True)

    _lease = ""

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Take the cards, for the Jupyter server until the kernel is there, and show the kernel these only.

        Raises:
            PlanError: They cannot be had; says who holds them.
        """
        ready = await super().pre_launch(**kwargs)
        if self.gpus or self.cards:
            await _in_thread(self._take, ready["env"])
        return ready

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        try:
            connection = await super().launch_kernel(cmd, **kwargs)
        except BaseException:
            await self._give_back()
            raise
        if self._lease and self.pid is not None:
            await _in_thread(LeaseBook().hand_over, self._lease, self.pid)
        return connection

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart)
        await self._give_back()  # a kernel that starts again asks again

    def _take(self, environment: dict[str, str]) -> None:
        devices = discover()
        if not devices:
            if self.cpu_fallback:
                return
            raise NoGPU(
                f"the kernel {self.kernel_spec.display_name} asks for {self.gpus or len(self.cards)}: {absent()}"
            )
        name = environment.get("JPY_SESSION_NAME") or str(self.kernel_id)
        holder = Holder.of("kernel", name)
        count = None if self.cards else self.gpus
        taken = LeaseBook().take(self._wanted(devices), holder, count, self.share, cast(Policy, self.policy))
        self._lease = taken[0].id
        by_uuid = {device.uuid: device for device in devices}
        environment.update(environment_of(by_uuid[lease.card] for lease in taken))
        environment[KERNEL_LEASE] = self._lease

    def _wanted(self, devices: list[Device]) -> list[Device]:
        if not self.cards:
            return devices
        there = {device.label: device for device in devices}
        if missing := [label for label in self.cards if label not in there]:
            raise PlanError(
                f"the kernel {self.kernel_spec.display_name} asks for GPU {missing[0]}; there are {', '.join(there)}"
            )
        return [there[label] for label in self.cards]

    async def _give_back(self) -> None:
        lease, self._lease = self._lease, ""
        if lease:
            await _in_thread(LeaseBook().give_back, lease)


async def _in_thread(function: Any, *args: Any) -> None:
    # The book may be locked for a while, and the event loop is the server's.
    await asyncio.get_running_loop().run_in_executor(None, partial(function, *args))
