"""A Celery application whose broker is a folder; `init` runs in the parent, tasks in its forked workers."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

import lumiqtrace

FOLDER = Path(os.environ["FOLDER"])

app = Celery("celery_app", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(FOLDER / "queue"),
    "data_folder_out": str(FOLDER / "queue"),
    "processed_folder": str(FOLDER / "done"),
    "control_folder": str(FOLDER / "control"),
}
app.conf.worker_hijack_root_logger = False
app.conf.broker_connection_retry_on_startup = True

lumiqtrace.init(os.environ["KEY"], base_url=os.environ["BACKEND"], flush_interval=3600, shutdown_timeout=20)


@app.task
def work(number: int) -> None:
    with lumiqtrace.span(f"work {number}"):
        pass
    (FOLDER / f"ran {number}").touch()
