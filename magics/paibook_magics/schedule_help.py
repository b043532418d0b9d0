"""The help of ``%pai_schedule``, apart from what carries it out, which is loaded when it is first used."""

from __future__ import annotations

SCHEDULE_HELP = """Keep a notebook as a job; `paibook job serve` runs it when it is due.

  %pai_schedule                                          the jobs
  %pai_schedule NOTEBOOK --cron '0 3 * * *' -p lr=0.1    every night at three
  %pai_schedule NOTEBOOK --at 2030-01-31T03:00           once
  %pai_schedule delete NAME                              forget a job

Further options, as of `paibook job add`: --name, --timezone, -n, --gpus, --cluster, --environment, --env, --retries,
--backoff, --timeout, --concurrency, --missed, --outputs, --output, --webhook, --email, --keep, --after, --replace.
"""
