"""What of a dead rank's log is shown."""

from __future__ import annotations

from paibook.clusters.engine_host import LOG_TAIL_LINES, _last_words

CRASH = """Fatal Python error: Segmentation fault

Thread 0x01 (most recent call first):
  File "threading.py", line 3 in wait

Current thread 0x02 (most recent call first):
  File "ctypes/__init__.py", line 517 in string_at
  File "Cell In[1]", line 2 in <module>
  File "paibook/program.py", line 9 in execute

Extension modules: a, b""".splitlines()


def test_a_crash_shows_the_frames_of_its_thread() -> None:
    assert _last_words(CRASH) == [CRASH[0], *CRASH[6:9]]


def test_else_the_end_of_the_log() -> None:
    assert _last_words([str(number) for number in range(40)]) == [str(n) for n in range(40 - LOG_TAIL_LINES, 40)]
