"""A quick start: what takes long to import is left out, and is there for whoever wants it afterwards."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from paibook.jobs.startup import without_iri_grammar
with without_iri_grammar():
    from paibook.jobs import process, runner
print("jsonschema" in sys.modules, [name for name in sys.modules if name.startswith("rfc3987")])
import rfc3987_syntax
"""


def test_an_attempt_starts_without_the_grammar_of_iris() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True []\n"), done.stderr
