"""paibook job Nightly training, made of it's 100% {{x}} $HOME.ipynb.

It runs the cells once, when it is started, without a kernel. What only a notebook has is left out: %load_ext, %pip,
%pai_runs, %%time. Retries, time limit, outputs and notification are `paibook job run`'s.
"""

import os
import subprocess
import sys

# Where the notebook was: relative paths and modules beside it are found there.
FOLDER = '/srv/repo'
os.chdir(FOLDER)
sys.path.insert(0, FOLDER)
os.environ.setdefault("PAIBOOK_CLUSTER", 'embedded')
os.environ.setdefault("PAIBOOK_WORKERS", "2")
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session


def _show(event):
    """Print what ranks print and display; to the true output, since what a rank's thread prints is an event again."""
    if event.kind in ("stdout", "stderr"):
        print(event.data, end="", file=getattr(sys, f"__{event.kind}__"), flush=True)
    elif event.kind in ("display", "result"):
        print(event.data.get("text/plain", ""), file=sys.__stdout__, flush=True)


def display(*objects, raw=False, **options):
    """Print what a notebook would show."""
    for shown in objects:
        print(shown.get("text/plain", "") if raw else shown, flush=True)


# Processes that a cluster starts may read this file again, and must not run it again.
if __name__ == "__main__":
    _session = Session()

    # In[1]
    lr: float = 0.1
    api_key = ""
    words = 3

    # In[2]
    # Parameters
    from paibook.jobs.secret_references import look_up
    lr = 0.2
    api_key = look_up('env:API_KEY')

    # In[3]
    None
    lines = ['to be', 'or not to be'] * words

    # In[4]
    _plan = Plan(
        'mapreduce',
        Program("""
def map(record):
    for word in record.split():
        yield word, 1

def reduce(key, values):
    yield key, sum(values)
""", 'Cell In[4]'),
        cluster=_session.cluster.reference,
        options={'inputs': [{'variable': 'lines'}], 'format': None, 'out': 'counts', 'out_kind': 'variable', 'outputs': {}, 'as': 'list', 'reducers': None, 'overwrite': False, 'sort': None, 'key': [], 'partition_by': [], 'resources': [], 'max_bad': None, 'sample': None, 'sql': False, 'backups': True},
    )
    _run = _session.run(_plan, {'lines': lines}, on_event=_show)
    _result = _run.result()
    counts = _result

    # In[5]
    _plan = Plan(
        'allreduce',
        Program('''
text = """
not moved
"""
comm.allreduce(words * hp.lr)
''', 'Cell In[5]'),
        cluster=_session.cluster.reference,
        resources=Resources(workers=2),
        push=('words',),
        options={'backend': 'auto', 'check': True, 'max_restarts': 3, 'min_workers': None, 'out': 'sums'},
        hyperparameters={'lr': lr},
    )
    _run = _session.run(_plan, {'words': words}, on_event=_show)
    _result = _run.result()
    sums = [_result.values[rank] for rank in sorted(_result.values)]

    # In[6]
    print(dict(counts)['be'], sums[0])
