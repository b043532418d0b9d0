"""Results: what a run that has ended leaves in the notebook."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from paibook.detached.handle import DetachedRun
from paibook.run import Run
from paibook_magics.mapreduce_planning import output_variables
from paibook_magics.sizes import describe

MAIN = ""  # name of the main output of a run that has several


def keep(run: Run | DetachedRun, namespace: MutableMapping[str, Any], out: str | None = None) -> Any:
    """Put a run's results into the notebook's variables, and say what went where.

    Args:
        run: Has ended well.
        namespace: The notebook's variables.
        out: The variable for the result; the plan's own, where None.

    Returns:
        What is to be shown as the cell's value, or None.
    """
    result = run.result()
    _keep_pulled(getattr(result, "pulled", {}), getattr(result, "differs", ()), namespace)
    if run.plan.runtime == "mapreduce":
        result = _keep_named(run, result, namespace)
        out = out or (run.plan.options["out"] if run.plan.options.get("out_kind") == "variable" else None)
    elif out is None:
        out = run.plan.options.get("out")  # it was resumed, or detached
    if out is not None:
        namespace[out] = _by_rank(result) if run.plan.runtime == "allreduce" else result
        print(_kept(run, out, result))
        return None
    return _short(result) if run.plan.runtime != "allreduce" else None


def _keep_named(run: Run | DetachedRun, result: Any, namespace: MutableMapping[str, Any]) -> Any:
    """Set the variables of the named outputs, say what each output got, and return the main one."""
    outputs = run.plan.options.get("outputs")
    if not outputs:
        return result
    for name, variable in output_variables(run.plan).items():
        namespace[variable] = result[name]
    rows = {name: written["rows"] for name, written in (run.summary or {}).get("outputs", {}).items()}
    for name, output in outputs.items():
        if name in rows:
            print(f"{output['target']}: {rows[name]:,} record{'s' * (rows[name] != 1)} of the output {name!r}")
    return result[MAIN]


def _keep_pulled(pulled: Mapping[str, Any], differs: Collection[str], namespace: MutableMapping[str, Any]) -> None:
    namespace.update(pulled)
    if pulled:
        print("pull", ", ".join(f"{name}: {describe(value)}" for name, value in pulled.items()))
    for name in sorted(differs):
        print(f"note: {name} differs between ranks; this is the lowest rank's ({name}@RANK: another's)")


def _kept(run: Run | DetachedRun, name: str, result: Any) -> str:
    seconds = (run.record.ended or time.time()) - run.record.started
    if run.plan.runtime == "mapreduce":
        return f"{name}: {len(result):,} records, {seconds:.1f} s"
    return (
        f"{name}: {'one value per rank' if run.plan.runtime == 'allreduce' else 'the trained tables'}, {seconds:.1f} s"
    )


def _by_rank(result: Any) -> list[Any]:
    return [result.values[rank] for rank in sorted(result.values)]


def _short(result: Any) -> Any:
    if isinstance(result, list) and len(result) > 20:
        return _Preview(result)
    return result


class _Preview:
    """The first records of a long list, and how many there are."""

    def __init__(self, records: list[Any]) -> None:
        self._records = records

    def __repr__(self) -> str:
        shown = ",\n ".join(repr(record) for record in self._records[:10])
        return f"[{shown},\n … {len(self._records):,} records in all; -o NAME keeps them]"
