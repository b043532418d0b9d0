"""The help of ``%pai_schedule`` and ``%pai_jobs``, apart from what carries them out, loaded when first used."""

from __future__ import annotations

SCHEDULE_HELP = """Keep a notebook as a job; `paibook job serve` runs it when it is due.

  %pai_schedule                                          the jobs
  %pai_schedule NOTEBOOK --cron '0 3 * * *' -p lr=0.1    every night at three
  %pai_schedule NOTEBOOK --at 2030-01-31T03:00           once
  %pai_schedule delete NAME                              forget a job

Further options, as of `paibook job add`: --name, --timezone, -n, --gpus, --gpu-share, --cpu-fallback, --cluster,
--environment, --env, --retries, --backoff, --timeout, --concurrency, --missed, --outputs, --output, --webhook, --email,
--keep, --after, --replace.
"""

JOBS_HELP = """Show the jobs: when each runs next, how its latest runs went, and the curve of the one that runs.

  %pai_jobs                      the jobs and their latest runs; in a notebook, live, with Log, Stop, Rerun and Run now
  %pai_jobs -n 50                more runs
"""
