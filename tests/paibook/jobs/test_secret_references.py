"""Secrets are looked up where they are used: in the environment, or in a keyring."""

from __future__ import annotations

import sys

import keyring
import pytest
from keyring.backend import KeyringBackend

from paibook.errors import PlanError
from paibook.jobs import Job
from paibook.jobs.kernel import kernel_environment
from paibook.jobs.secret_references import look_up


class InMemory(KeyringBackend):
    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept = {}

    def get_password(self, service, username):
        return self.kept.get((service, username))

    def set_password(self, service, username, password) -> None:
        self.kept[service, username] = password


@pytest.fixture
def ring():
    before = keyring.get_keyring()
    keyring.set_keyring(InMemory())
    yield keyring
    keyring.set_keyring(before)


def test_a_secret_of_the_keyring_reaches_the_kernel_and_no_file(ring) -> None:
    ring.set_password("warehouse", "me/here", "sesame")
    job = Job(
        "a", "a.ipynb", {"token": "keyring:warehouse/me/here"}, variables={"PASSWORD": "keyring:warehouse/me/here"}
    )
    assert look_up("keyring:warehouse/me/here") == "sesame"
    assert kernel_environment(job, "run")["PASSWORD"] == "sesame"
    assert "sesame" not in job.to_json()


def test_what_is_missing_is_named(ring, monkeypatch) -> None:
    with pytest.raises(PlanError, match="the keyring has no such entry; `keyring set warehouse me` makes it"):
        look_up("keyring:warehouse/me")
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(PlanError, match="install the keyring package with `pip install keyring`"):
        look_up("keyring:warehouse/me")
