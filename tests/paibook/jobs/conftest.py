"""Notebooks and stores for the tests of jobs."""

from __future__ import annotations

import json
import time

import pytest


@pytest.fixture
def notebook_of():
    """``notebook_of(path, "code", ("code", "tag"), ...)`` writes a notebook and returns its path."""

    def write(path, *cells):
        made = []
        for index, cell in enumerate(cells):
            code, tags = (cell, []) if isinstance(cell, str) else (cell[0], [cell[1]])
            made.append(
                {
                    "cell_type": "code",
                    "id": f"cell-{index}",
                    "metadata": {"tags": tags},
                    "source": code,
                    "outputs": [],
                    "execution_count": None,
                }
            )
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": spec}, "cells": made}
        path.write_text(json.dumps(notebook))
        return path

    return write


@pytest.fixture
def wait_for():
    """``wait_for(condition)`` gives what the condition does once that is something, or fails."""

    def wait(condition, seconds=100.0):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.05)
        return found

    return wait
