"""Questions that a warehouse is asked, in the shape of the TPC-H benchmark's, over small tables made here."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow
import pytest

START = datetime.date(1992, 1, 1)
MONEY = pyarrow.decimal128(15, 2)


def table(rows: list[dict[str, Any]], **types: pyarrow.DataType) -> pyarrow.Table:
    made = pyarrow.Table.from_pylist(rows)
    return pyarrow.table({name: made[name].cast(types.get(name, made[name].type)) for name in made.column_names})


def warehouse(orders: int = 400) -> dict[str, pyarrow.Table]:
    """Eight tables that refer to each other; some customers have no order."""
    g = random.Random(3)
    regions = ["AFRICA", "AMERICA", "ASIA", "EUROPE"]
    nations = [{"n_nationkey": i, "n_name": f"NATION {i}", "n_regionkey": i % 4} for i in range(12)]
    customers = [
        {
            "c_custkey": i,
            "c_name": f"Customer {i}",
            "c_nationkey": g.randrange(12),
            "c_mktsegment": g.choice(["BUILDING", "MACHINERY", "FURNITURE"]),
            "c_acctbal": Decimal(g.randrange(-99999, 999999)) / 100,
        }
        for i in range(60)
    ]
    suppliers = [{"s_suppkey": i, "s_name": f"Supplier {i}", "s_nationkey": g.randrange(12)} for i in range(20)]
    parts = [
        {"p_partkey": i, "p_type": f"{g.choice(['PROMO', 'STANDARD'])} {g.choice(['TIN', 'COPPER'])}"}
        for i in range(50)
    ]
    made: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for order in range(orders):
        day = START + datetime.timedelta(days=g.randrange(2400))
        lines += [line(order, number, day, g) for number in range(1, g.randrange(2, 8))]
        made.append(
            {
                "o_orderkey": order,
                "o_custkey": g.randrange(40),
                "o_orderdate": day,
                "o_totalprice": Decimal(g.randrange(100_000, 50_000_000)) / 100,
                "o_orderpriority": g.choice(["1-URGENT", "2-HIGH", "3-MEDIUM", "5-LOW"]),
                "o_shippriority": 0,
            }
        )
    money = dict.fromkeys(["l_quantity", "l_extendedprice", "l_discount", "l_tax"], MONEY)
    return {
        "region": table([{"r_regionkey": i, "r_name": name} for i, name in enumerate(regions)]),
        "nation": table(nations),
        "customer": table(customers, c_acctbal=MONEY),
        "supplier": table(suppliers),
        "part": table(parts),
        "orders": table(made, o_totalprice=MONEY),
        "lineitem": table(lines, **money),
    }


def line(order: int, number: int, day: datetime.date, g: random.Random) -> dict[str, Any]:
    shipped = day + datetime.timedelta(days=g.randrange(1, 120))
    received = shipped + datetime.timedelta(days=g.randrange(1, 30))
    return {
        "l_orderkey": order,
        "l_linenumber": number,
        "l_partkey": g.randrange(50),
        "l_suppkey": g.randrange(20),
        "l_quantity": Decimal(g.randrange(1, 51)),
        "l_extendedprice": Decimal(g.randrange(100_000, 9_000_000)) / 100,
        "l_discount": Decimal(g.randrange(0, 11)) / 100,
        "l_tax": Decimal(g.randrange(0, 9)) / 100,
        "l_returnflag": g.choice("ANR"),
        "l_linestatus": g.choice("FO"),
        "l_shipdate": shipped,
        "l_commitdate": day + datetime.timedelta(days=g.randrange(30, 90)),
        "l_receiptdate": received,
        "l_shipmode": g.choice(["MAIL", "SHIP", "AIR", "RAIL"]),
    }


WAREHOUSE = warehouse()

QUESTIONS = {
    "1: prices by state": """
        SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
            sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price,
            sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge,
            avg(l_quantity) AS avg_qty, avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc,
            count(*) AS count_order
        FROM lineitem
        WHERE l_shipdate <= DATE '1998-12-01' - INTERVAL '90' DAY
        GROUP BY l_returnflag, l_linestatus
        ORDER BY l_returnflag, l_linestatus""",
    "3: orders not yet shipped": """
        SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority
        FROM customer, orders, lineitem
        WHERE c_mktsegment = 'BUILDING' AND c_custkey = o_custkey AND l_orderkey = o_orderkey
            AND o_orderdate < DATE '1995-03-15' AND l_shipdate > DATE '1995-03-15'
        GROUP BY l_orderkey, o_orderdate, o_shippriority
        ORDER BY revenue DESC, o_orderdate
        LIMIT 10""",
    "4: priorities": """
        SELECT o_orderpriority, count(*) AS order_count
        FROM orders
        WHERE EXISTS (
            SELECT * FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate
        )
        GROUP BY o_orderpriority
        ORDER BY o_orderpriority""",
    "5: local suppliers": """
        SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
        FROM customer, orders, lineitem, supplier, nation, region
        WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey
            AND c_nationkey = s_nationkey AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey
            AND r_name = 'ASIA' AND o_orderdate >= DATE '1993-01-01'
            AND o_orderdate < DATE '1993-01-01' + INTERVAL '3' YEAR
        GROUP BY n_name
        ORDER BY revenue DESC""",
    "6: a changed discount": """
        SELECT sum(l_extendedprice * l_discount) AS revenue
        FROM lineitem
        WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1994-01-01' + INTERVAL '1' YEAR
            AND l_discount BETWEEN 0.06 - 0.01 AND 0.06 + 0.01 AND l_quantity < 24""",
    "10: returned items": """
        SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS revenue, c_acctbal, n_name
        FROM customer, orders, lineitem, nation
        WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND o_orderdate >= DATE '1993-10-01'
            AND o_orderdate < DATE '1993-10-01' + INTERVAL '8' MONTH AND l_returnflag = 'R'
            AND c_nationkey = n_nationkey
        GROUP BY c_custkey, c_name, c_acctbal, n_name
        ORDER BY revenue DESC, c_custkey
        LIMIT 20""",
    "12: modes of shipping": """
        SELECT l_shipmode,
            sum(CASE WHEN o_orderpriority = '1-URGENT' OR o_orderpriority = '2-HIGH' THEN 1 ELSE 0 END) AS high,
            sum(CASE WHEN o_orderpriority <> '1-URGENT' AND o_orderpriority <> '2-HIGH' THEN 1 ELSE 0 END) AS low
        FROM orders, lineitem
        WHERE o_orderkey = l_orderkey AND l_shipmode IN ('MAIL', 'SHIP') AND l_commitdate < l_receiptdate
            AND l_shipdate < l_commitdate AND l_receiptdate >= DATE '1994-01-01'
            AND l_receiptdate < DATE '1994-01-01' + INTERVAL '2' YEAR
        GROUP BY l_shipmode
        ORDER BY l_shipmode""",
    "13: customers by their orders": """
        SELECT c_count, count(*) AS custdist
        FROM (
            SELECT c_custkey, count(o_orderkey)
            FROM customer LEFT OUTER JOIN orders ON c_custkey = o_custkey AND o_orderpriority NOT LIKE '%LOW%'
            GROUP BY c_custkey
        ) AS c_orders (c_custkey, c_count)
        GROUP BY c_count
        ORDER BY custdist DESC, c_count DESC""",
    "14: effect of promotion": """
        SELECT 100.00 * sum(CASE WHEN p_type LIKE 'PROMO%' THEN l_extendedprice * (1 - l_discount) ELSE 0 END)
            / sum(l_extendedprice * (1 - l_discount)) AS promo_revenue
        FROM lineitem, part
        WHERE l_partkey = p_partkey AND l_shipdate >= DATE '1995-01-01'
            AND l_shipdate < DATE '1995-01-01' + INTERVAL '6' MONTH""",
    "18: large orders": """
        SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity)
        FROM customer, orders, lineitem
        WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 150)
            AND c_custkey = o_custkey AND o_orderkey = l_orderkey
        GROUP BY c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice
        ORDER BY o_totalprice DESC, o_orderdate
        LIMIT 100""",
    "21: suppliers that kept orders waiting": """
        SELECT s_name, count(*) AS numwait
        FROM supplier, lineitem l1, orders, nation
        WHERE s_suppkey = l1.l_suppkey AND o_orderkey = l1.l_orderkey AND o_orderpriority <> '5-LOW'
            AND l1.l_receiptdate > l1.l_commitdate
            AND EXISTS (
                SELECT * FROM lineitem l2 WHERE l2.l_orderkey = l1.l_orderkey AND l2.l_suppkey <> l1.l_suppkey
            )
            AND NOT EXISTS (
                SELECT * FROM lineitem l3
                WHERE l3.l_orderkey = l1.l_orderkey AND l3.l_suppkey <> l1.l_suppkey
                    AND l3.l_receiptdate > l3.l_commitdate
            )
            AND s_nationkey = n_nationkey AND n_name < 'NATION 6'
        GROUP BY s_name
        ORDER BY numwait DESC, s_name
        LIMIT 100""",
}
IN_ONE_TASK = {
    "15: the best supplier": """
        WITH revenue AS (
            SELECT l_suppkey AS supplier_no, sum(l_extendedprice * (1 - l_discount)) AS total_revenue
            FROM lineitem GROUP BY l_suppkey
        )
        SELECT s_suppkey, s_name, total_revenue
        FROM supplier, revenue
        WHERE s_suppkey = supplier_no AND total_revenue = (SELECT max(total_revenue) FROM revenue)
        ORDER BY s_suppkey""",
}


@pytest.mark.parametrize("query", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_questions(oracle: Callable[..., Any], query: str) -> None:
    oracle({name: WAREHOUSE[name] for name in WAREHOUSE if name in query}).check(query, ordered=True)


@pytest.mark.parametrize("query", IN_ONE_TASK.values(), ids=IN_ONE_TASK.keys())
def test_questions_in_one_task(oracle: Callable[..., Any], query: str) -> None:
    oracle({name: WAREHOUSE[name] for name in WAREHOUSE if name in query}).check(query, ordered=True, divided=False)
