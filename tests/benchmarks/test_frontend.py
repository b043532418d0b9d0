"""A front end drives a real kernel and sees what a notebook page sees."""

import sys

import psutil

from benchmarks.frontend import FrontEnd

KERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def test_a_kernel_is_driven_interrupted_and_ended_with_its_children():
    with FrontEnd(KERNEL) as front:
        cell = front.execute("print('one')\n1 + 1")
        assert cell.status == "ok"
        assert "one" in cell.text
        assert "2" in cell.text
        assert 0 < cell.kernel_seconds < cell.seconds
        child = front.execute("import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)")
        sleeping = front.wait(
            front.send("print('zz', flush=True)\nimport time; time.sleep(60)"), 10, until=lambda c: "zz" in c.text
        )
        assert sleeping.status == "running"
        front.interrupt()
        assert front.wait(sleeping, 10).status == "error"
        assert "KeyboardInterrupt" in sleeping.text
    pid = int(child.text)
    # Where init does not reap, an orphan's zombie stays; it runs no more.
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
