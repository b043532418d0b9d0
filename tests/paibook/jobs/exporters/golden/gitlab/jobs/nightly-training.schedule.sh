#!/bin/sh
# Makes the schedule of the paibook job 'Nightly training'. Needs curl, jq, and three environment variables:
# GITLAB (such as https://gitlab.com/api/v4), PROJECT (its number), GITLAB_TOKEN (with the scope `api`).
set -eu
schedules="$GITLAB/projects/$PROJECT/pipeline_schedules"
# The token goes by standard input: a command line can be read by everybody on this host.
call() {
  printf 'header = "PRIVATE-TOKEN: %s"\n' "$GITLAB_TOKEN" | curl --fail --silent --show-error --config - "$@"
}
id=$(call --data-urlencode 'description=Nightly training' --data-urlencode 'cron=30 3 * * 1-5' --data-urlencode cron_timezone=Asia/Shanghai --data-urlencode ref="${BRANCH:-main}" "$schedules" | jq -er .id)
call --data-urlencode key=PAIBOOK_JOB --data-urlencode value=nightly-training "$schedules/$id/variables" > /dev/null
echo "made the schedule $id"
