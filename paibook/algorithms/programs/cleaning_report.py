"""Cleaning report: what a table's columns hold, and what in them looks wrong.

The type of a column is that of most of its values; bad values are those of another type. Distinct values are exact up
to 1024 and then estimated within some 3 % from the 1024 least hashes (Beyer et al., 2007). Quartiles are a t-digest's;
outliers lie more than 1.5 interquartile ranges beyond them (Tukey, 1977), counted by that digest.

Hyperparameters: ``missing`` (texts that stand for a missing value), ``examples`` (bad values shown for each column).
"""

import math
import re
from collections import Counter
from hashlib import blake2b

from fastdigest import TDigest

MISSING = frozenset(hp.missing)
HASHES = 1024
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")


def map(record):
    for column, value in record.items():
        yield column, ("value", value)


def combine(column, parts):
    yield column, ("summary", summary(parts))


def reduce(column, parts):
    whole = summary(parts)
    counts, examples = whole["counts"], whole["examples"]
    missing = counts.pop("missing", 0)
    present = sum(counts.values())
    kind = max(counts, key=lambda name: (counts[name], name)) if counts else "missing"
    if {"integer", "number"} >= {kind} and counts["number"]:
        kind = "number"
    fitting = {kind, "integer"} if kind == "number" else {kind}
    strangers = [value for name, values in examples.items() if name not in fitting for value in values]
    yield {
        "column": column,
        "type": kind,
        "values": present,
        "missing": missing,
        "missing_share": missing / (present + missing),
        "distinct": distinct(whole["hashes"]),
        "bad": sum(count for name, count in counts.items() if name not in fitting),
        "bad_examples": strangers[: hp.examples],
        **statistics(whole["digest"] if kind in ("integer", "number") else None),
    }


def type_of(value):
    """One of missing, boolean, integer, number, date, text."""
    if isinstance(value, str):
        text = value.strip()
        if text in MISSING:
            return "missing"
        if text.lower() in ("true", "false"):
            return "boolean"
        if NUMBER.fullmatch(text):
            return "integer" if text.lstrip("+-").isdigit() else "number"
        return "date" if DATE.fullmatch(text) else "text"
    if value is None or value != value:
        return "missing"
    if type(value).__name__ in ("bool", "bool_"):
        return "boolean"
    if hasattr(value, "isoformat"):
        return "date"
    if hasattr(value, "__index__"):
        return "integer"
    return "number" if hasattr(value, "__float__") else "text"


def summary(parts):
    """What values, and summaries that combiners made of values, come to."""
    counts, examples, hashes, digest, numbers = Counter(), {}, set(), TDigest(), []
    for form, part in parts:
        if form == "summary":
            counts += part["counts"]
            hashes |= part["hashes"]
            digest.merge_inplace(TDigest.from_bytes(part["digest"]))
            for kind, values in part["examples"].items():
                examples.setdefault(kind, []).extend(values)
            continue
        kind = type_of(part)
        counts[kind] += 1
        if kind == "missing":
            continue
        if len(examples.setdefault(kind, [])) < hp.examples:
            examples[kind].append(str(part))
        hashes.add(int.from_bytes(blake2b(str(part).encode(), digest_size=8).digest(), "big"))
        if kind in ("integer", "number") and math.isfinite(float(part)):
            numbers.append(float(part))
        if len(hashes) > 8 * HASHES:
            hashes = least(hashes)
        if len(numbers) == 10_000:
            digest.batch_update(numbers)
            numbers = []
    if numbers:
        digest.batch_update(numbers)
    examples = {kind: values[: hp.examples] for kind, values in examples.items()}
    return {"counts": counts, "examples": examples, "hashes": least(hashes), "digest": digest.to_bytes()}


def least(hashes):
    return set(sorted(hashes)[:HASHES])


def distinct(hashes):
    """How many distinct values there are, from the least of their hashes."""
    return len(hashes) if len(hashes) < HASHES else round((HASHES - 1) * 2**64 / max(hashes))


def statistics(content):
    """Least, greatest, mean, quartiles and outliers of the numbers; None for each where the column has no numbers."""
    digest = TDigest.from_bytes(content) if content else TDigest()
    if digest.n_values == 0:
        return dict.fromkeys(("min", "max", "mean", "q1", "median", "q3", "outliers"))
    q1, q3 = digest.quantile(0.25), digest.quantile(0.75)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    below = digest.cdf(low) if digest.min() < low else 0.0
    above = 1 - digest.cdf(high) if digest.max() > high else 0.0
    return {
        "min": digest.min(),
        "max": digest.max(),
        "mean": digest.mean(),
        "q1": q1,
        "median": digest.median(),
        "q3": q3,
        "outliers": max(round((below + above) * digest.n_values), (digest.min() < low) + (digest.max() > high)),
    }
