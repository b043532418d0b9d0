"""What the fields of the dialog's form are of a job."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paibook.errors import PlanError
from paibook.jobs.job import Job, Notification
from paibook.resources import Resources

pytest.importorskip("jupyter_scheduler")

from paibook.jobs.lab.options import OPTIONS, job_options

FIELDS = Path(__file__).resolve().parents[4] / "extensions" / "lab" / "src" / "fields.js"


def test_each_field_becomes_a_part_of_the_job() -> None:
    given = {
        "cluster": "tcp://10.0.0.5:8786",
        "workers": 4,  # jupyter-scheduler makes numbers of texts that look like them
        "gpus": "1",
        "retries": "2",
        "backoff": "0.5",
        "timeout": "3600",
        "concurrency": "replace",
        "missed": "catch-up",
        "grace": 5,
        "webhook": "https://example.org/hook",
        "email": "a@example.org, b@example.org",
        "notify_on": "failure stopped",
    }
    job = Job("fit", "fit.ipynb", **job_options(given))
    assert (job.cluster, job.resources) == ("tcp://10.0.0.5:8786", Resources(workers=4, gpus_per_worker=1))
    assert (job.retries, job.backoff, job.timeout, job.grace) == (2, 0.5, 3600.0, 5.0)
    assert (job.concurrency, job.missed) == ("replace", "catch-up")
    hears = Notification("https://example.org/hook", ("a@example.org", "b@example.org"), ("failure", "stopped"))
    assert job.notify == hears


@pytest.mark.parametrize("given", [None, {}, {"workers": "", "cluster": "  "}])
def test_empty_fields_are_the_jobs_own_defaults(given) -> None:
    assert Job("fit", "fit.ipynb", **job_options(given)) == Job("fit", "fit.ipynb")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"retrys": "1"}, "there is no option 'retrys'; did you mean 'retries'"),
        ({"workers": "many"}, "workers must be a whole number, 0 or more; got 'many'"),
        ({"gpus": "-1"}, "gpus must be a whole number"),
        ({"timeout": "1 h"}, "timeout must be a number of seconds; got '1 h'"),
        ({"concurrency": "alow"}, "concurrency 'alow' is unknown; did you mean 'allow'"),
        ({"missed": "all"}, "missed 'all' is unknown"),
        ({"notify_on": "failure"}, "notify_on needs a webhook or an email"),
        ({"email": "nobody"}, "e-mail address 'nobody' is none"),
        ({"webhook": "ftp://x"}, "must start with http"),
    ],
)
def test_what_cannot_be_meant_is_named(given, said) -> None:
    with pytest.raises(PlanError, match=said):
        job_options(given)


def test_the_form_has_a_field_for_each_but_the_environment_that_the_dialog_offers() -> None:
    assert set(re.findall(r'name: "(\w+)"', FIELDS.read_text())) == set(OPTIONS) - {"environment"}
