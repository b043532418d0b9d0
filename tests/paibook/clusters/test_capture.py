"""Prints of functions that share a process go to whoever runs them."""

from __future__ import annotations

import sys
import threading

import pytest

from paibook.clusters.capture import FLUSH_CHARACTERS, Printer, captured

WAIT = 10


class Chunks:
    """Receives chunks of text, and lets a test wait for them."""

    def __init__(self) -> None:
        self.chunks: list[str] = []
        self._arrived = threading.Event()

    def __call__(self, text: str) -> None:
        self.chunks.append(text)
        self._arrived.set()

    @property
    def text(self) -> str:
        return "".join(self.chunks)

    def wait(self) -> None:
        assert self._arrived.wait(WAIT)


class TestPrinter:
    def test_passes_on_by_itself(self) -> None:
        got = Chunks()
        Printer(got).write("hello")
        got.wait()
        assert got.chunks == ["hello"]

    def test_joins_small_writes(self) -> None:
        got = Chunks()
        printer = Printer(got)
        for i in range(1000):
            printer.write(f"{i}\n")
        printer.flush()
        assert got.text == "".join(f"{i}\n" for i in range(1000))
        assert len(got.chunks) < 100

    def test_passes_on_what_is_large_at_once(self) -> None:
        got = Chunks()
        Printer(got).write("x" * FLUSH_CHARACTERS)
        assert got.text == "x" * FLUSH_CHARACTERS

    def test_flush_passes_on_once(self) -> None:
        got = Chunks()
        printer = Printer(got)
        printer.write("once")
        printer.flush()
        printer.flush()
        assert got.chunks == ["once"]

    def test_threads_lose_nothing(self) -> None:
        got = Chunks()
        printer = Printer(got)

        def work(name: int) -> None:
            for i in range(2000):
                printer.write(f"{name} {i}\n")

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        printer.flush()
        for name in range(4):
            assert [line for line in got.text.splitlines() if line.startswith(f"{name} ")] == [
                f"{name} {i}" for i in range(2000)
            ]


class TestCaptured:
    def test_both_streams_in_order(self) -> None:
        out, err = Chunks(), Chunks()
        with captured(out, err):
            print("one")
            print("two", end="")
            print("bad", file=sys.stderr)
        assert (out.text, err.text) == ("one\ntwo", "bad\n")

    def test_everything_has_arrived_at_the_end_even_after_an_error(self) -> None:
        out = Chunks()

        def work() -> None:
            with captured(out, Chunks()):
                print("before")
                raise KeyError

        with pytest.raises(KeyError):
            work()
        assert out.text == "before\n"

    def test_flush_does_not_wait(self) -> None:
        out = Chunks()
        with captured(out, Chunks()):
            print("now", flush=True)
            assert out.text == "now\n"

    def test_the_streams_are_put_back(self) -> None:
        before = sys.stdout, sys.stderr
        with captured(Chunks(), Chunks()):
            assert sys.stdout is not before[0]
            with captured(Chunks(), Chunks()):
                pass
            assert sys.stdout is not before[0]
        assert (sys.stdout, sys.stderr) == before

    def test_the_inner_of_two_gets_it(self) -> None:
        outer, inner = Chunks(), Chunks()
        with captured(outer, Chunks()):
            print("a")
            with captured(inner, Chunks()):
                print("b")
            print("c")
        assert (outer.text, inner.text) == ("a\nc\n", "b\n")

    def test_threads_do_not_mix(self) -> None:
        outs = [Chunks() for _ in range(4)]
        together = threading.Barrier(4)

        def work(name: int) -> None:
            with captured(outs[name], Chunks()):
                together.wait(WAIT)
                for i in range(500):
                    print(name, i)
                together.wait(WAIT)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name, out in enumerate(outs):
            assert out.text == "".join(f"{name} {i}\n" for i in range(500))

    def test_other_threads_print_as_before(self, capsys: pytest.CaptureFixture[str]) -> None:
        out = Chunks()
        with captured(out, Chunks()):
            thread = threading.Thread(target=print, args=("from elsewhere",))
            thread.start()
            thread.join()
        assert out.text == ""
        assert capsys.readouterr().out == "from elsewhere\n"

    def test_the_stream_still_behaves_as_one(self) -> None:
        encoding = sys.stdout.encoding
        with captured(Chunks(), Chunks()):
            assert sys.stdout.encoding == encoding
            assert sys.stdout.writable()
            assert sys.stdout.write("abc") == 3
