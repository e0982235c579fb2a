"""Airflow 3: a night as one task, which submits a Ray job to a running cluster and waits for it.

The worker needs `ray` and this repository at /opt/ampere; all nodes of the cluster share /data.
Airflow's own timeout would end the submission and not the job: hence `--budget-minutes`.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="ampere_night",
    schedule="30 1 * * *",
    start_date=datetime(2026, 12, 1),
    catchup=False,
    max_active_runs=1,
):
    BashOperator(
        task_id="run",
        bash_command=(
            "cd /opt/ampere && ray job submit --address http://ray-head:8265 --working-dir . -- "
            "python jobs/run.py --workspace /data/workspace --manifest /data/catalog.csv "
            "--prune --retry-failed --only-retryable --budget-minutes 300 --until index"
        ),
        retries=1,  # it goes on where the first attempt ended
        retry_delay=timedelta(minutes=10),
    )
