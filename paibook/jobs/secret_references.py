"""Secrets of a job: references that are looked up where they are used, never values that are stored."""

from __future__ import annotations

import os
import re
from typing import Any

from paibook.errors import PlanError

_REFERENCE = re.compile(r"(env:[A-Za-z_]\w*|keyring:[^/\s]+/\S+)")
# Whole words of a name: `token` in `api_token`, but not in `tokenizer` or `max_tokens`.
_SECRET_NAME = re.compile(
    r"(?:^|_)(password|passwd|secret|token|api_?key|access_?key|private_?key)(?:$|_)", re.IGNORECASE
)


def is_reference(value: Any) -> bool:
    """Whether a value is ``env:NAME`` or ``keyring:SERVICE/NAME``."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def check_no_secret(name: str, value: Any) -> None:
    """Refuse a secret in the clear.

    Raises:
        PlanError: The name is a secret's and the value a text; says how to refer to it.
    """
    if isinstance(value, str) and value and _SECRET_NAME.search(name) and not is_reference(value):
        raise PlanError(
            f"{name} looks like a secret, and a job's values are stored in the clear; "
            f"give a reference instead: {name}=env:{name.upper()} or {name}=keyring:SERVICE/NAME"
        )


def look_up(reference: str) -> str:
    """The secret behind a reference.

    Raises:
        PlanError: There is none, or the keyring package is missing.
    """
    kind, _, rest = reference.partition(":")
    if kind == "env":
        if rest not in os.environ:
            raise PlanError(f"secret {reference}: the environment variable {rest} is not set where the job runs")
        return os.environ[rest]
    try:
        import keyring
    except ImportError as error:
        raise PlanError(f"secret {reference}: install the keyring package with `pip install keyring`") from error
    service, _, name = rest.partition("/")
    secret = keyring.get_password(service, name)
    if secret is None:
        raise PlanError(f"secret {reference}: the keyring has no such entry; `keyring set {service} {name}` makes it")
    return str(secret)
