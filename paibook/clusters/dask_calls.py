"""Questions to Dask workers, with an end: ``Client.run`` waits for ever for a worker that is stopped or wedged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from distributed import Client

from paibook.errors import ClusterError

ANSWER_SECONDS = 8.0
PING_SECONDS = 1.0


def ask(
    client: Client,
    function: Callable[..., Any],
    *args: Any,
    workers: Iterable[str] | None = None,
    on_error: str = "raise",
    timeout: float = ANSWER_SECONDS,
) -> dict[str, Any]:
    """Run ``function(*args)`` on Dask workers beside their tasks; answers by worker address.

    Args:
        workers: Addresses; all by default.
        on_error: ``raise``, ``return`` or ``ignore``, as in ``Client.run``.
        timeout: Seconds for all answers together.

    Raises:
        ClusterError: The scheduler is gone, or workers did not answer in time: names them.
    """
    if client.status != "running":
        raise ClusterError("the connection to the Dask scheduler is lost")
    asked = None if workers is None else list(workers)
    try:
        # The coroutine behind ``Client.run``: only this way can the wait be ended.
        answers: dict[str, Any] = client.sync(
            client._run, function, *args, workers=asked, on_error=on_error, callback_timeout=timeout
        )
    except TimeoutError as error:
        mute = silent(client, asked)
        who = f"Dask worker {', '.join(mute)}" if mute else "a Dask worker"
        raise ClusterError(
            f"{who} did not answer within {timeout:.0f} s: it is stopped, or stuck in code that never yields. End it "
            "where it runs; `%pai_cluster restart` does so for the embedded cluster"
        ) from error
    except OSError as error:
        raise ClusterError(f"the connection to the Dask scheduler is lost: {error}") from error
    return answers


def silent(client: Client, workers: Iterable[str] | None = None) -> list[str]:
    """Addresses of the workers that do not answer within a second."""

    async def answers(worker: str) -> bool:
        try:
            await asyncio.wait_for(client._run(_nothing, workers=[worker], on_error="raise"), PING_SECONDS)
        except (TimeoutError, OSError):
            return False
        return True

    async def ping_all(addresses: list[str]) -> list[bool]:
        return await asyncio.gather(*map(answers, addresses))

    addresses = sorted(client.nthreads() if workers is None else workers)
    heard = client.sync(ping_all, addresses, callback_timeout=PING_SECONDS + ANSWER_SECONDS)
    return [address for address, ok in zip(addresses, heard, strict=True) if not ok]


def _nothing() -> None:
    pass
