"""mrjob's local runner: a file per job, which its tasks run as a program of their own."""

from __future__ import annotations

import os

from benchmarks.mapreduce_jobs.mrjob_tf_idf import TfIdf
from benchmarks.mapreduce_jobs.serving import serve, workers


def main() -> None:
    """Serve; mrjob has nothing that could be started before a job."""
    # Its tasks start as scripts, and find this package only so.
    os.environ["PYTHONPATH"] = os.getcwd()
    serve({"tf_idf": tf_idf})


def tf_idf(files: list[str], out: str, documents: int) -> None:
    """Run the job; its output are lines of JSON."""
    line = ["-r", "local", "--num-cores", str(workers()), "--output-dir", out, "--documents", str(documents), *files]
    job = TfIdf(["--no-conf", *line])
    with job.make_runner() as runner:
        runner.run()


if __name__ == "__main__":
    main()
