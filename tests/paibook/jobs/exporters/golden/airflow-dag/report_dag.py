"""paibook job report. Put this file into Airflow's folder of DAGs.

The command, with the notebook, the spec and the Python that it names, has to be there on Airflow's workers. Retries,
their back-off and the time limit are in the spec: paibook carries them out.
Secrets are Airflow's variables: API_KEY, OTHER_KEY.
"""

from __future__ import annotations

import pendulum

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator
from airflow.timetables.trigger import CronTriggerTimetable

with DAG(
    dag_id='report',
    description='paibook job report',
    schedule=CronTriggerTimetable('30 3 * * 1-5', timezone='Asia/Shanghai'),
    start_date=pendulum.parse('2026-01-15T00:00:00+00:00'),
    catchup=False,
    max_active_runs=1,
    tags=["paibook"],
):
    task_1 = BashOperator(
        task_id="load-data",
        bash_command='/opt/venv/bin/python -m paibook.jobs.command job run \'/srv/repo/it\'"\'"\'s 100% {{ \'{\' }}{{ \'{\' }}x}} $HOME.ipynb\' --spec \'/srv/out 100%/load-data.job.json\' ',
    )
    task_2 = BashOperator(
        task_id="nightly-training",
        bash_command='/opt/venv/bin/python -m paibook.jobs.command job run \'/srv/repo/it\'"\'"\'s 100% {{ \'{\' }}{{ \'{\' }}x}} $HOME.ipynb\' --spec \'/srv/out 100%/nightly-training.job.json\' ',
        env={"API_KEY": "{{ var.value.API_KEY }}"},
        append_env=True,
    )
    task_3 = BashOperator(
        task_id="2nd-check",
        bash_command='/opt/venv/bin/python -m paibook.jobs.command job run \'/srv/repo/it\'"\'"\'s 100% {{ \'{\' }}{{ \'{\' }}x}} $HOME.ipynb\' --spec \'/srv/out 100%/2nd-check.job.json\' ',
        env={"OTHER_KEY": "{{ var.value.OTHER_KEY }}"},
        append_env=True,
    )
    task_4 = BashOperator(
        task_id="report",
        bash_command='/opt/venv/bin/python -m paibook.jobs.command job run \'/srv/repo/it\'"\'"\'s 100% {{ \'{\' }}{{ \'{\' }}x}} $HOME.ipynb\' --spec \'/srv/out 100%/report.job.json\' ',
        env={"OTHER_KEY": "{{ var.value.OTHER_KEY }}"},
        append_env=True,
    )
    [task_1] >> task_2
    [task_1] >> task_3
    [task_2, task_3] >> task_4
