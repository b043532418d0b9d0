"""Estimators in cells whose ranks are processes, on the Adult data (a9a)."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paibook.history import RunHistory
from paibook.plan import Plan
from paibook.program import Program
from paibook.resources import Resources
from paibook.session import Session

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("PAIBOOK_DATA", Path(__file__).resolve().parents[5] / "shared" / "data"))
# Of scikit-learn 1.9.1: LogisticRegression(C=10, tol=1e-10, max_iter=10000).fit of a9a; log-loss of its training data,
# area under the ROC curve of a9a.t.
LOG_LOSS, AUC = 0.322646, 0.90186

LOGISTIC = """
import numpy as np

train, test = pai.shard(train), pai.shard(test, format="libsvm")
model = pai.LogisticRegression(C=10).fit(train)
x = np.concatenate(comm.allgather(model.predict_proba(train)))[:, 1]
y = np.concatenate(comm.allgather(train.data["label"].to_numpy())) > 0
z = np.concatenate(comm.allgather(model.predict_proba(test)))[:, 1]
t = np.concatenate(comm.allgather(test.data["label"].to_numpy())) > 0
accuracy = model.score(test)
model.coef_.tolist(), len(train), -np.log(np.where(y, x, 1 - x)).mean(), z.tolist(), t.tolist(), accuracy
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    made = Session("embedded", RunHistory(tmp_path_factory.mktemp("history")))
    yield made
    made.close()


def run(session: Session, source: str, workers: int, variables: dict[str, Any] | None = None) -> Any:
    """Run a cell; the value of its last line by rank, and the run."""
    program = Program(source.strip(), "<cell>")
    plan = Plan("allreduce", program, Resources(workers=workers), cluster=session.cluster.reference)
    started = session.run(plan, variables or {})
    return started.result().values, started


@pytest.fixture(scope="module")
def a9a(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if not (DATA / "a9a.gz").exists():
        pytest.skip(f"a9a is not in {DATA}; set PAIBOOK_DATA to the folder that holds it")
    train = tmp_path_factory.mktemp("a9a") / "a9a.libsvm"
    train.write_bytes(gzip.decompress((DATA / "a9a.gz").read_bytes()))
    return {"train": str(train), "test": str(DATA / "a9a.t.gz")}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_logistic_regression_of_a9a(session: Session, a9a: dict[str, str], workers: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    values, started = run(session, LOGISTIC, workers, a9a)
    assert sum(values[rank][1] for rank in range(workers)) == 32_561
    coefficients, _, loss, chances, labels, accuracy = values[0]
    assert all(values[rank][0] == coefficients for rank in range(workers))
    assert loss == pytest.approx(LOG_LOSS, abs=1e-5)
    assert metrics.roc_auc_score(labels, chances) == pytest.approx(AUC, abs=5e-4)
    assert accuracy == pytest.approx(0.850, abs=1e-3)
    losses = [metric.value for metric in started.metrics if metric.name == "loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(LOG_LOSS, abs=1e-3)


DDP = """
import torch

torch.manual_seed(rank)
x = torch.linspace(-1, 1, 64).reshape(-1, 1)
net = torch.nn.Linear(1, 1)
for _ in range(2):
    pai.fit(net, (x, 3 * x + 1), torch.nn.functional.mse_loss, epochs=30, batch_size=8,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
torch.distributed.init_process_group("gloo")
pai.fit(net, torch.utils.data.TensorDataset(x, 3 * x + 1), torch.nn.functional.mse_loss)
torch.distributed.destroy_process_group()
net.weight.item(), net.bias.item()
"""


def test_a_module_trains_over_ddp(session: Session) -> None:
    for _ in range(2):
        values, started = run(session, DDP, 2)
        assert values[0] == values[1] == pytest.approx((3, 1), abs=1e-2)
        assert {metric.rank for metric in started.metrics} == {0, 1}


GROWTH = """
import os, torch

x = torch.linspace(-1, 1, 64).reshape(-1, 1)
net = torch.nn.Linear(1, 1)
counts = []
for _ in range(20):
    pai.fit(net, (x, x), torch.nn.functional.mse_loss, batch_size=8)
    counts.append((len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))))
counts[1], counts[-1]
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="threads and descriptors are counted in /proc")
def test_fits_one_after_another_leave_no_threads_or_descriptors(session: Session) -> None:
    for second, last in run(session, GROWTH, 2)[0].values():
        # Less than one for a fit: the cluster opens and closes some of its own meanwhile.
        assert last[0] - second[0] < 18
        assert last[1] - second[1] < 18


OTHERS = """
import numpy as np

x, y = pai.shard((X, Y)).data
km = pai.KMeans(3).fit(x)
pca = pai.PCA(2).fit(x)
ridge = pai.Ridge(0.5).fit(x, y)
soft = pai.SoftmaxRegression().fit(x, km.labels_)
np.concatenate([km.cluster_centers_.ravel(), pca.components_.ravel(), ridge.coef_, soft.coef_.ravel()]).tolist()
"""


def test_all_estimators_give_on_processes_what_one_rank_does(session: Session) -> None:
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.normal(place, 1, (50, 4)) for place in (-5, 0, 5)])
    generator.shuffle(x)
    variables = {"X": x, "Y": x @ [1, 2, 0, -1]}
    alone = run(session, OTHERS, 1, variables)[0][0]
    together = run(session, OTHERS, 3, variables)[0]
    assert together[0] == together[1] == together[2]
    np.testing.assert_allclose(together[0], alone, atol=1e-5)
