"""The archive: there and back, and nothing outside its own folder, whatever an archive says."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from dataclasses import replace

import pytest

from paibook.errors import DataError, PaibookError
from paibook.jobs import Job
from paibook.jobs.cli import main
from paibook.jobs.exporters import export_job
from paibook.jobs.exporters.archive import import_job, missing_data


@pytest.fixture
def job(notebook_of, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data.csv").write_text("a,b\n")
    path = notebook_of(tmp_path / "here" / "my nb.ipynb", ("data = ''\nkey = ''", "parameters"), "print(data)")
    return Job("Nightly", str(path), {"data": "data.csv", "key": "env:KEY"}, cron="0 3 * * *", retries=3)


def archive_of(job, options, tmp_path):
    ((name, content),) = export_job(job, "zip", options).items()
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_there_and_back(job, options, tmp_path):
    path = archive_of(job, options, tmp_path)
    made = import_job(path, tmp_path / "there")
    target = tmp_path / "there" / "nightly"
    assert made == replace(job, notebook=str(target / "notebook.ipynb"))
    assert sorted(file.name for file in target.iterdir()) == sorted(zipfile.ZipFile(path).namelist())
    assert (target / "requirements.txt").read_text() == "numpy==2.1.0\npaibook==0.1.0\n"
    assert "KEY" in (target / "README.md").read_text()
    assert missing_data(made) == ["parameter data: data.csv is not here; it had 4 bytes"]
    (target / "data.csv").write_text("c,d\n")
    assert "another file" in missing_data(made)[0]
    (target / "data.csv").write_text("a,b\n")
    assert missing_data(made) == []


def test_the_same_job_makes_the_same_bytes(job, options):
    assert export_job(job, "zip", options) == export_job(job, "zip", options)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:evil", "folder/x", "dir/"])
def test_unsafe_names_are_refused(name, job, options, tmp_path):
    path = archive_of(job, options, tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(DataError, match="unsafe entry"):
        import_job(path, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_links_are_refused(job, options, tmp_path):
    path = archive_of(job, options, tmp_path)
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match="unsafe entry"):
        import_job(path, tmp_path / "there")


def test_what_is_no_archive_is_said(job, options, tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_text("no zip")
    with pytest.raises(DataError, match="cannot be read"):
        import_job(tmp_path / "a.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(DataError, match=r"has no job\.json"):
        import_job(tmp_path / "b.zip", tmp_path)
    path = archive_of(job, options, tmp_path)
    monkeypatch.setattr("paibook.jobs.exporters.archive.LARGEST", 10)
    with pytest.raises(DataError, match="unpacks to more than"):
        import_job(path, tmp_path / "there")


def test_a_job_with_a_hostile_name_is_refused(options, tmp_path, job):
    spec = {**job.to_dict(), "name": "../../x"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("job.json", json.dumps(spec))
        archive.writestr("notebook.ipynb", "{}")
    (tmp_path / "c.zip").write_bytes(buffer.getvalue())
    with pytest.raises(PaibookError, match="job name"):
        import_job(tmp_path / "c.zip", tmp_path / "there")


def test_a_folder_that_is_there_is_kept(job, options, tmp_path):
    path = archive_of(job, options, tmp_path)
    import_job(path, tmp_path / "there")
    with pytest.raises(DataError, match="is there already"):
        import_job(path, tmp_path / "there")


def test_the_command_line_exports_and_imports(job, tmp_path, monkeypatch, capsys):
    from paibook.settings import settings

    def command(*words, jobs="jobs"):
        monkeypatch.setenv("PAIBOOK_JOBS", str(tmp_path / jobs))
        settings.cache_clear()
        code = main(["job", *words])
        return code, capsys.readouterr()

    try:
        assert command("add", job.notebook, "--name", "Nightly", "--cron", "0 3 * * *", "-p", "data=data.csv")[0] == 0
        code, said = command("export", "Nightly", "--to", "zip", "-o", str(tmp_path / "out"), "--json")
        path = str(tmp_path / "out" / "nightly.zip")
        assert (code, json.loads(said.out)) == (0, {"files": [path]})
        code, said = command("export", "Nightly", "--to", "crontab", "-o", str(tmp_path / "out"))
        assert code == 2
        assert "--without missed" in said.err
        words = ("--to", "crontab", "-o", str(tmp_path / "out"), "--without", "missed")
        assert command("export", "Nightly", *words)[0] == 0
        code, said = command("import", path, "-o", str(tmp_path / "there"), jobs="others")
        assert code == 0
        assert "data.csv is not here" in said.out
        assert command("list", "--json", jobs="others")[1].out.count('"name": "Nightly"') == 1
    finally:
        settings.cache_clear()
