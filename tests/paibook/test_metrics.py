"""Metrics: batched, in order, complete; a stream on disk survives a crash."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paibook.metrics import NO_STEP, Metric, MetricStream, Recorder, log, recording

WAIT = 10


class Tensor:
    def __float__(self) -> float:
        raise RuntimeError("a Tensor with 2 elements cannot be converted to Scalar")  # as torch does


class Batches:
    """Receives batches, and lets a test wait for records."""

    def __init__(self) -> None:
        self.batches: list[list[Metric]] = []
        self._arrived = threading.Condition()

    def __call__(self, batch: list[Metric]) -> None:
        with self._arrived:
            self.batches.append(batch)
            self._arrived.notify_all()

    @property
    def records(self) -> list[Metric]:
        return [metric for batch in self.batches for metric in batch]

    def wait(self, count: int) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.records) >= count, WAIT)


def metric(step: int | None = 1, name: str = "loss", value: float = 0.5, rank: int = 0) -> Metric:
    return Metric("", step, name, value, rank, 1000.0)


class TestRecorder:
    def test_sends_by_itself_what_is_recorded(self) -> None:
        sent = Batches()
        Recorder(sent, rank=3).record(7, {"loss": 0.5, "accuracy": 1})
        sent.wait(2)
        assert [(m.step, m.name, m.value, m.rank) for m in sent.records] == [(7, "loss", 0.5, 3), (7, "accuracy", 1, 3)]

    def test_joins_records_into_few_batches_in_order(self) -> None:
        sent = Batches()
        recorder = Recorder(sent)
        for step in range(10_000):
            recorder.record(step, {"loss": step})
        recorder.flush()
        assert [m.step for m in sent.records] == list(range(10_000))
        assert len(sent.batches) < 1000

    def test_flush_sends_once(self) -> None:
        sent = Batches()
        recorder = Recorder(sent)
        recorder.record(1, {"loss": 1})
        recorder.flush()
        recorder.flush()
        assert len(sent.records) == 1

    def test_records_after_a_flush_are_sent_too(self) -> None:
        sent = Batches()
        recorder = Recorder(sent)
        for step in range(3):
            recorder.record(step, {"loss": 1})
            sent.wait(step + 1)
        assert [m.step for m in sent.records] == [0, 1, 2]

    def test_threads_lose_nothing_and_keep_their_own_order(self) -> None:
        sent = Batches()
        recorder = Recorder(sent)

        def work(name: str) -> None:
            for step in range(500):
                recorder.record(step, {name: step})
                if step % 50 == 0:
                    recorder.flush()

        threads = [threading.Thread(target=work, args=(f"m{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        recorder.flush()
        for i in range(4):
            assert [m.step for m in sent.records if m.name == f"m{i}"] == list(range(500))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_keeps_values_that_are_not_finite(self, value: float) -> None:
        sent = Batches()
        recorder = Recorder(sent)
        recorder.record(1, {"loss": value})
        recorder.flush()
        assert repr(sent.records[0].value) == repr(value)


class TestLog:
    def test_goes_to_the_recorder_of_the_context(self) -> None:
        outer, inner = Batches(), Batches()
        with recording(Recorder(outer)):
            log(step=1, a=1)
            with recording(Recorder(inner, rank=5)):
                log(step=2, b=2)
            log(step=3, c=3)
        assert [m.name for m in outer.records] == ["a", "c"]
        assert [(m.name, m.rank) for m in inner.records] == [("b", 5)]

    def test_the_end_of_the_context_flushes_even_after_an_error(self) -> None:
        sent = Batches()

        def train() -> None:
            with recording(Recorder(sent)):
                log(step=1, loss=1)
                1 / 0

        with pytest.raises(ZeroDivisionError):
            train()
        assert len(sent.records) == 1

    def test_threads_of_the_process_reach_a_recorder_of_the_whole_process(self) -> None:
        sent = Batches()
        with recording(Recorder(sent), whole_process=True):
            thread = threading.Thread(target=log, kwargs={"step": 4, "loss": 2})
            thread.start()
            thread.join()
        assert [m.step for m in sent.records] == [4]

    def test_without_a_recorder_it_prints(self, capsys: pytest.CaptureFixture[str]) -> None:
        log(step=3, loss=0.41)
        log(accuracy=1)
        assert capsys.readouterr().out == "step 3: loss=0.41\naccuracy=1\n"

    @pytest.mark.parametrize("value", ["high", None, [1], 1j, np.arange(2), 10**400])
    def test_a_value_that_is_no_number_is_named(self, value: object) -> None:
        sent = Batches()
        with recording(Recorder(sent)), pytest.raises(TypeError, match=r"pai\.log\(accuracy=\.\.\.\) takes a number"):
            log(step=1, loss=1.0, accuracy=value)
        assert sent.records == []  # nothing of a call that failed

    def test_a_tensor_with_several_elements_is_named(self) -> None:
        with recording(Recorder(Batches())), pytest.raises(TypeError, match=r"pai\.log\(loss=\.\.\.\) .* Tensor"):
            log(loss=Tensor())

    def test_takes_whatever_float_takes(self) -> None:
        sent = Batches()
        with recording(Recorder(sent)):
            log(step=np.int64(2), a=np.float32(0.5), b=np.array(3), c=True)
        assert [(m.step, m.value) for m in sent.records] == [(2, 0.5), (2, 3.0), (2, 1.0)]
        assert all(type(m.step) is int and type(m.value) is float for m in sent.records)


class TestMetricStream:
    def test_stamps_the_run_and_keeps_order(self) -> None:
        stream = MetricStream("run-1")
        stream.append([metric(1), metric(2, "accuracy")])
        stream.append([metric(3)])
        assert [(m.run, m.step, m.name) for m in stream] == [
            ("run-1", 1, "loss"),
            ("run-1", 2, "accuracy"),
            ("run-1", 3, "loss"),
        ]
        assert (len(stream), stream.names, stream.last("accuracy"), stream.last("none")) == (
            3,
            ("loss", "accuracy"),
            0.5,
            None,
        )

    def test_since_misses_nothing_and_repeats_nothing(self) -> None:
        stream, seen = MetricStream(), []
        for step in range(5):
            stream.append([metric(step), metric(step)])
            seen += stream.since(len(seen))
        assert [m.step for m in seen] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]

    def test_subscribers_hear_later_batches_until_they_leave(self) -> None:
        stream, heard = MetricStream("r"), Batches()
        stream.append([metric(0)])
        leave = stream.subscribe(heard)
        stream.append([metric(1)])
        leave()
        leave()
        stream.append([metric(2)])
        assert [(m.run, m.step) for m in heard.records] == [("r", 1)]

    def test_a_subscriber_may_read_the_stream(self) -> None:
        stream, lengths = MetricStream(), []
        stream.subscribe(lambda batch: lengths.append(len(list(stream))))
        stream.append([metric()])
        assert lengths == [1]

    def test_frame_has_a_column_per_field(self) -> None:
        stream = MetricStream("r")
        assert list(stream.frame().columns) == ["run", "step", "name", "value", "rank", "time"]
        stream.append([metric(1), metric(2)])
        assert stream.frame()["step"].tolist() == [1, 2]

    @given(
        st.lists(
            st.builds(
                Metric,
                run=st.just(""),
                step=st.none() | st.integers(0, 2**60),
                name=st.text(min_size=1),
                value=st.floats(),
                rank=st.integers(-1, 100),
                time=st.floats(0, 2e9),
            ),
            max_size=5,
        )
    )
    def test_comes_back_from_disk_as_it_was(
        self, tmp_path_factory: pytest.TempPathFactory, metrics: list[Metric]
    ) -> None:
        path = tmp_path_factory.mktemp("stream") / "metrics.jsonl"
        written = MetricStream("run-1", path)
        written.append(metrics)
        assert repr(list(MetricStream.load(path))) == repr(list(written))  # by repr: NaN is not equal to itself

    def test_load_leaves_out_a_last_line_cut_short(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        MetricStream("run-1", path).append([metric(1), metric(2)])
        whole = path.read_text()
        last = len(whole) - len(whole.splitlines()[-1]) - 1
        for end in range(last, len(whole) - 1):
            path.write_text(whole[:end])
            loaded = MetricStream.load(path)
            assert (loaded.run, [m.step for m in loaded]) == ("run-1", [1])

    def test_load_of_nothing_is_empty(self, tmp_path: Path) -> None:
        assert len(MetricStream.load(tmp_path / "none.jsonl")) == 0

    def test_threads_append_whole_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        stream = MetricStream("r", path)
        threads = [
            threading.Thread(target=lambda rank=rank: [stream.append([metric(s, rank=rank)]) for s in range(50)])
            for rank in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert [r["step"] for r in records if r["rank"] == 2] == list(range(50))
        assert len(records) == 200

    def test_lines_are_those_of_json(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        MetricStream('r"1', path).append([metric(None, 'a"\n', math.nan), metric(1, "é", 1e-300)])
        for line in path.read_text().splitlines():
            assert json.dumps(json.loads(line)) == line

    def test_columns_go_on_where_the_last_ones_ended(self) -> None:
        stream = MetricStream()
        stream.append([metric(1), metric(None, "accuracy", 2.0, 3)])
        first = stream.columns()
        stream.append([metric(4)])
        assert (first.step.tolist(), first.code.tolist(), first.names) == ([1, NO_STEP], [0, 1], ("loss", "accuracy"))
        assert stream.columns(len(first)).step.tolist() == [4]

    def test_notes_stand_beside_the_step_the_run_had_come_to(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        stream = MetricStream("r", path)
        stream.note("before")
        stream.append([metric(3), metric(2)])
        stream.note(" after ")
        assert [(n.step, n.text) for n in MetricStream.load(path).notes] == [(None, "before"), (3, "after")]
        with pytest.raises(ValueError, match="needs some text"):
            stream.note(" ")


@pytest.mark.parametrize("step", ["a", math.nan, math.inf, [1], 2**63])
def test_a_step_that_is_no_whole_number_is_named(step: object) -> None:
    with (
        recording(Recorder(Batches())),
        pytest.raises(TypeError, match=r"pai\.log\(step=\.\.\.\) takes a whole number"),
    ):
        log(step=step, loss=1.0)  # type: ignore[arg-type]
