"""Examples: what ``%%pai_mapreduce?`` and its peers show, each a cell that runs as it stands."""

from __future__ import annotations

SUMMARIES = {
    "pai_mapreduce": "Run the cell's map and reduce over an input: independent pieces, shuffled by key.",
    "pai_allreduce": "Run the cell on n ranks that talk by MPI's operations (comm) or torch.distributed.",
    "pai_ps": "Run the cell's train(ps) on n workers that share a model held by parameter servers.",
}

# By magic: what each example shows, and its cells.
EXAMPLES: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "pai_mapreduce": [
        (
            "Count words",
            (
                'docs = ["to be", "or not to be"]',
                """%%pai_mapreduce -i docs -o counts
def map(line):
    for word in line.split():
        yield word, 1

def reduce(word, ones):
    yield word, sum(ones)""",
            ),
        ),
        (
            "Join two inputs, each with its own mapper; rows that fit nothing go to an output of their own",
            (
                """users = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Alan"}]
orders = [{"user": 1, "price": 30}, {"user": 1, "price": 12}, {"user": 7, "price": 5}]""",
                """%%pai_mapreduce -i users=users orders=orders -o totals unknown=strangers
def map_users(user):
    yield user["id"], user["name"]

def map_orders(order):
    yield order["user"], order["price"]

def order(value):
    return isinstance(value, int)      # the name before the prices

def reduce(user, values):
    first, *prices = values
    if isinstance(first, int):
        yield pai.output("unknown", {"user": user})
    else:
        yield {"name": first, "total": sum(prices)}""",
            ),
        ),
        (
            "Join and group in SQL (pip install 'paibook[sql]')",
            (
                """%%pai_mapreduce --sql -i users orders -o spent
SELECT name, sum(price) AS total
FROM users JOIN orders ON users.id = orders.user
GROUP BY name
ORDER BY total DESC""",
            ),
        ),
        (
            "Two stages: how many words come how often",
            (
                """%%pai_mapreduce -i docs --sort
def map(line):
    for word in line.split():
        yield word, 1

reduce = pai.Sum()

def map2(pair):
    word, count = pair
    yield count, 1

reduce2 = pai.Sum()""",
            ),
        ),
    ],
    "pai_allreduce": [
        (
            "",
            (
                """%%pai_allreduce -n 2
import numpy as np
total = np.zeros(1)
comm.Allreduce(np.array([rank + 1.0]), total)
total""",
            ),
        )
    ],
    "pai_ps": [
        (
            "",
            (
                """%%pai_ps -n 2 --servers 2 --until "loss < 0.3 or epoch >= 20"
def train(ps):
    w = ps.table("w", shape=(10,), optimizer=pai.SGD(lr=0.1))
    for epoch in ps.clocks():
        weights = w.pull()
        w.push(2 * (weights - 1))
        pai.log(step=epoch, loss=float(((weights - 1) ** 2).sum()))""",
            ),
        )
    ],
}


def examples_text(magic: str) -> str:
    """All examples of a magic, one below the other."""
    examples = EXAMPLES[magic]
    heading = "Example:" if len(examples) == 1 else "Examples:"
    parts = ["\n\n".join([f"# {title}"] * bool(title) + list(cells)) for title, cells in examples]
    return "\n\n".join([heading, *parts])
