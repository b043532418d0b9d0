"""GitHub, GitLab, SLURM and PAI-DLC: YAML that loads, scripts that run, times that are right."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace

import pytest
import yaml

from paibook.errors import PlanError
from paibook.jobs import Dependency, Job
from paibook.jobs.exporters import export_job, write_files
from paibook.jobs.exporters.github import escaped
from paibook.resources import Resources

RUN = ["paibook", "job", "run", "./it's 100% {{x}} $HOME.ipynb", "--spec", "jobs/nightly-training.job.json"]


def test_github_runs_it_in_utc(job, options):
    files = export_job(replace(job, missed="skip"), "github", options)
    workflow = yaml.safe_load(files[".github/workflows/nightly-training.yml"])
    assert workflow["on"]["schedule"] == [{"cron": "30 19 * * 0,1,2,3,4"}]
    (step,) = [s for s in workflow["jobs"]["run"]["steps"] if s.get("name") == "Run the job"]
    assert shlex.split(step["run"]) == RUN
    assert step["env"]["API_KEY"] == "${{ secrets.API_KEY }}"
    assert workflow["jobs"]["run"]["concurrency"] == {"group": "nightly-training", "cancel-in-progress": False}
    assert Job.from_json(files["jobs/nightly-training.job.json"]).notebook == "it's 100% {{x}} $HOME.ipynb"
    assert escaped("a ${{ b }}") == "a ${{ '${{' }} b }}"


def test_gitlab_makes_its_schedule(job, options, tmp_path, sh):
    files = export_job(job, "gitlab", options)
    (made,) = yaml.safe_load(files["jobs/nightly-training.gitlab-ci.yml"]).values()
    assert shlex.split(made["script"][1]) == RUN
    assert made["resource_group"] == "nightly-training"
    # curl and jq that only write down what they were asked.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "curl").write_text('#!/bin/sh\ncat >> "$LOG.in"\nprintf "%s\\n" "$@" >> "$LOG"\necho "{}"\n')
    (programs / "jq").write_text("#!/bin/sh\ncat > /dev/null\necho 7\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "LOG": str(tmp_path / "log"), "GITLAB": "http://g"}
    script = files["jobs/nightly-training.schedule.sh"]
    said = sh(script, env={**environment, "PROJECT": "1", "GITLAB_TOKEN": "hidden"})
    words = (tmp_path / "log").read_text().splitlines()
    assert said == "made the schedule 7\n"
    assert {"cron=30 3 * * 1-5", "cron_timezone=Asia/Shanghai", "value=nightly-training"} <= set(words)
    assert "http://g/projects/1/pipeline_schedules/7/variables" in words
    assert "hidden" not in " ".join(words)
    assert "hidden" in (tmp_path / "log.in").read_text()


def test_slurm_runs_the_script(job, options, recorder, sh, tmp_path):
    job = replace(job, resources=Resources(workers=2, gpus_per_worker=1, memory=2**30))
    options = replace(options, python=str(recorder.path), folder=tmp_path / "out put")
    files = export_job(job, "slurm", options)
    write_files(files, options.folder)
    (options.folder / "nightly-training.env").write_text("API_KEY=k\n")
    lines = files["nightly-training.scrontab"].splitlines()
    settings = ["--job-name=nightly-training", "--nodes=1", "--ntasks=1", "--cpus-per-task=2", "--mem=2304M"]
    settings += ["--gpus=2", "--time=33", "--output=nightly-training-%j.log"]
    assert [line.removeprefix("#SCRON ") for line in lines if line.startswith("#SCRON ")] == settings
    batch = files["nightly-training.sbatch"].splitlines()
    assert batch[0] == "#!/bin/sh"
    assert batch[1 : 1 + len(settings)] == [f"#SBATCH {setting}" for setting in settings]
    *fields, command = lines[-1].split(maxsplit=5)
    assert " ".join(fields) == "30 19 * * 0,1,2,3,4"
    sh(command)
    assert recorder()[0][-1] == str(options.folder / "nightly-training.job.json")


def test_slurm_begins_at_a_moment_of_its_clock(job, options):
    once = replace(job, cron="", at="2030-06-01T03:00")
    files = export_job(once, "slurm", replace(options, target_zone="Europe/Berlin"))
    assert "sbatch --begin=2030-05-31T21:00:00 " in files["nightly-training.submit.sh"]
    subprocess.run(["bash", "-n"], input=files["nightly-training.submit.sh"], text=True, check=True)


def test_dlc_is_submitted(job, options, recorder, sh, tmp_path):
    job = replace(job, cron="", parameters={}, resources=Resources(workers=2, gpus_per_worker=1))
    write_files(export_job(job, "dlc", options), options.folder)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pai").symlink_to(recorder.path)
    script = shlex.quote(str(options.folder / "submit.sh"))
    sh(f"{script} --workspace-id 5", env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"})
    words = recorder()[0]
    assert words[:3] == ["dlc", "job", "submit"]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given["--command"] == "paibook job run /job/notebook.ipynb --spec /job/job.json"
    assert (given["--cpu"], given["--memory"], given["--gpu"]) == ("2", "8Gi", "2")
    assert (given["--image"], given["--workspace-id"]) == (options.image, "5")


@pytest.mark.parametrize(
    ("target", "change", "said"),
    [
        ("github", {}, "--without missed"),
        ("github", {"missed": "skip", "timezone": "Europe/Berlin"}, "take --timezone UTC"),
        ("github", {"missed": "skip", "after": (Dependency("a"),)}, "--without after"),
        ("github", {"missed": "skip", "notebook": "/a.ipynb"}, "no Git repository"),
        ("gitlab", {"missed": "skip"}, "--without missed"),
        ("gitlab", {"concurrency": "replace"}, "--without concurrency"),
        ("slurm", {"timezone": "Europe/Berlin"}, "--target-zone Europe/Berlin"),
        ("slurm", {"missed": "catch-up"}, "--without missed"),
        ("slurm", {"after": (Dependency("a"),)}, "--dependency=afterok"),
        ("dlc", {}, "--without schedule"),
        ("dlc", {"cron": ""}, "API_KEY cannot be handed over"),
        ("argoo", {}, "did you mean 'argo'"),
    ],
)
def test_what_a_service_cannot_do_is_refused(target, change, said, job, options):
    with pytest.raises(PlanError, match=said):
        export_job(replace(job, **change), target, options)


def test_files_that_are_there_are_kept(tmp_path, job, options):
    files = {"a.sh": "#!/bin/sh\n", "b/c.json": json.dumps({})}
    write_files(files, tmp_path / "x")
    with pytest.raises(Exception, match="--overwrite"):
        write_files(files, tmp_path / "x")
    (path, _) = write_files(files, tmp_path / "x", overwrite=True)
    assert path.stat().st_mode & 0o111
