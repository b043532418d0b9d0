"""The job as a value: it survives JSON, and says clearly what is wrong with it."""

from __future__ import annotations

from datetime import datetime

import pytest

from paibook.errors import PlanError
from paibook.jobs import Dependency, Job, Notification
from paibook.jobs.schedule import check_cron, preview
from paibook.resources import Resources


def test_a_job_survives_json() -> None:
    job = Job(
        name="nightly fit",
        notebook="my notes/fit.ipynb",
        parameters={"lr": 0.1, "layers": [8, 8], "token": "env:TOKEN"},
        cron="0 3 * * 1-5",
        timezone="Europe/Berlin",
        resources=Resources(workers=4, gpus_per_worker=1),
        cluster="tcp://host:8786",
        environment="/envs/a",
        variables={"A": "1"},
        retries=2,
        timeout=60,
        concurrency="replace",
        missed="catch-up",
        outputs=("ipynb", "html"),
        notify=Notification("https://example.org/hook", ("a@example.org",), ("failure", "success")),
        keep=3,
        after=(Dependency("extract", "any"),),
    )
    assert Job.from_json(job.to_json()) == job
    assert Job.from_dict({"name": "a", "notebook": "a.ipynb"}) == Job("a", "a.ipynb")
    assert job.slug == "nightly-fit"
    assert hash(job) == hash(Job.from_json(job.to_json()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "a/b"}, "for example 'a-b'"),
        ({"name": "../etc"}, "job name '../etc' must start with a letter"),
        ({"name": "a..b"}, "for example 'a.b'"),
        ({"name": ""}, "for example 'nightly'"),
        ({"notebook": "a.py"}, "must be the path of an .ipynb file"),
        ({"cron": "0 3 * *"}, "has 4 fields; five are needed"),
        ({"cron": "61 3 * * *"}, "cron '61 3 * * *'"),
        ({"cron": "0 0 30 2 *"}, "never fires"),
        ({"cron": "* * * * *", "at": "2030-01-01T00:00"}, "not both"),
        ({"at": "tomorrow"}, "is no moment"),
        ({"timezone": "Europe/Berln"}, "did you mean 'Europe/Berlin'"),
        ({"parameters": {"password": "hunter2"}}, "password=env:PASSWORD"),
        ({"parameters": {"a b": 1}}, "no name of Python"),
        ({"parameters": {"x": float("nan")}}, "must be JSON-able"),
        ({"variables": {"API_KEY": "abc"}}, "looks like a secret"),
        ({"retries": -1}, "retries must be a whole number from 0 up"),
        ({"retries": True}, "retries must be a whole number"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"keep": 0}, "keep must be a whole number from 1 up"),
        ({"concurrency": "forbidden"}, "did you mean 'forbid'"),
        ({"missed": "never"}, "there are skip, once, catch-up"),
        ({"outputs": ("htm",)}, "did you mean 'html'"),
        ({"after": (Dependency("a"),)}, "cannot come after itself"),
    ],
)
def test_bad_input_is_named(change, says) -> None:
    with pytest.raises(PlanError) as caught:
        Job(**{"name": "a", "notebook": "a.ipynb", **change})
    assert says in str(caught.value)


def test_an_unknown_field_is_named_with_the_nearest() -> None:
    with pytest.raises(PlanError, match="no field 'retry'; did you mean 'retries'"):
        Job.from_dict({"name": "a", "notebook": "a.ipynb", "retry": 1})
    with pytest.raises(PlanError, match="JSON object"):
        Job.from_json("[]")


def test_ordinary_names_are_no_secrets() -> None:
    Job("a", "a.ipynb", parameters={"tokenizer": "bpe", "max_tokens": "9"})


def test_five_fire_times_are_shown() -> None:
    now = datetime.fromisoformat("2026-01-02T12:00+00:00")
    assert [t.isoformat() for t in check_cron("0 3 * * 1-5", "UTC", now)][:2] == [
        "2026-01-05T03:00:00+00:00",
        "2026-01-06T03:00:00+00:00",
    ]
    assert len(preview("@daily", "UTC", now)) == 5


def test_a_time_shown_twice_or_skipped_by_the_clock_fires_once() -> None:
    autumn = datetime.fromisoformat("2026-10-24T12:00+00:00")  # 25 October, 3:00 becomes 2:00
    twice = preview("30 2 * * *", "Europe/Berlin", autumn, count=2)
    assert [t.date().day for t in twice] == [25, 26]
    spring = datetime.fromisoformat("2026-03-28T12:00+00:00")  # 29 March has no 2:30
    skipped = preview("30 2 * * *", "Europe/Berlin", spring, count=2)
    assert [t.isoformat() for t in skipped] == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
