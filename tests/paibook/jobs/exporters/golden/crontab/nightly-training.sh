#!/bin/sh
# Runs the job 'Nightly training' once.
set -eu
# Still running: this time is left out.
exec 9>'/srv/out 100%/.nightly-training.lock'
flock -n 9 || exit 0
# Make this file yourself, readable by you alone, with lines such as API_KEY='...'
set -a
. '/srv/out 100%/nightly-training.env'
set +a
exec /opt/venv/bin/python -m paibook.jobs.command job run '/srv/repo/it'"'"'s 100% {{x}} $HOME.ipynb' --spec '/srv/out 100%/nightly-training.job.json'
