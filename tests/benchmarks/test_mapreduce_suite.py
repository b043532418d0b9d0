"""A side's process starts, answers, is checked, and leaves nothing behind; what fails says why."""

import json
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import answers, mapreduce
from benchmarks.mapreduce import Engine, Job
from benchmarks.memory import PeakMemory

HERE = Path(sys.executable)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    files = []
    for number in range(4):
        files.append(tmp_path / f"part-{number}.jsonl")
        files[-1].write_text("".join(json.dumps({"id": f"{number}-{i}", "text": "a b " * i}) + "\n" for i in range(5)))
    documents, answer = answers.weights(files)
    return Job("tf_idf", tuple(map(str, files)), {"documents": documents}, answer)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["process_pool", "paibook_cells"])
def test_a_side_gives_the_right_answer(module: str, job: Job, tmp_path: Path) -> None:
    engine = Engine("side", "pyarrow", module, (), HERE)
    process = mapreduce.Process(engine, 2, tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    try:
        with PeakMemory(process.pid) as memory:
            assert process.seconds(job) > 0
            assert process.seconds(job) > 0
    finally:
        process.close()
    assert memory.peak > 10e6
    assert not [child for child in psutil.wait_procs(children, 10)[1] if child.is_running()]


@pytest.mark.slow
def test_a_wrong_answer_is_no_time(job: Job, tmp_path: Path) -> None:
    wrong = Job(job.name, job.files, {"documents": 7}, job.answer)
    process = mapreduce.Process(Engine("side", "pyarrow", "process_pool", (), HERE), 1, tmp_path)
    try:
        with pytest.raises(RuntimeError, match="tf_idf: wrong answer"):
            process.seconds(wrong)
    finally:
        process.close()


def test_a_side_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"its process ended: .*no_such_side"):
        mapreduce.Process(Engine("side", "pyarrow", "no_such_side", (), HERE), 1, tmp_path)


def test_targets_name_sides_that_are_there() -> None:
    found = {measure.name: measure.targets for measure in mapreduce.MEASURES}
    assert found["TF-IDF"]["PySpark RDD"].limit == pytest.approx(0.4)
    assert {name for targets in found.values() for name in targets} <= {side.name for side in mapreduce.SIDES}
