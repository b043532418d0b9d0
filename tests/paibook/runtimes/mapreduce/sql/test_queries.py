"""A table of queries, each answered by DuckDB in one process and by a cell on many tasks."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow
import pytest


def some(values: list[Any], share_of_nulls: float, generator: random.Random) -> Any:
    return None if generator.random() < share_of_nulls else generator.choice(values)


def sales(rows: int = 240) -> pyarrow.Table:
    """Numbers of all kinds with nulls and duplicates; one customer has half of the rows."""
    g = random.Random(1)
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(40)]
    names = ["apple", "pear", "fig", "FIG", "", "Ünïcode 'quoted'"]
    return pyarrow.table(
        {
            "id": pyarrow.array(range(rows), pyarrow.int64()),
            "customer": pyarrow.array(
                [7 if g.random() < 0.5 else some(list(range(12)), 0.1, g) for _ in range(rows)], pyarrow.int32()
            ),
            "Product": [some(names, 0.1, g) for _ in range(rows)],
            "price": pyarrow.array([some([i / 4 for i in range(20)], 0.1, g) for _ in range(rows)], pyarrow.float64()),
            "cost": pyarrow.array(
                [some([Decimal(i) / 100 for i in range(300)], 0.1, g) for _ in range(rows)], pyarrow.decimal128(9, 2)
            ),
            "day": pyarrow.array([some(days, 0.1, g) for _ in range(rows)], pyarrow.date32()),
            "paid": pyarrow.array([some([True, False], 0.1, g) for _ in range(rows)], pyarrow.bool_()),
        }
    )


CUSTOMERS = pyarrow.table(
    {
        "customer": pyarrow.array([0.0, 1.0, 2.0, 3.0, 7.0, 7.0, None, 99.0], pyarrow.float64()),
        "name": ["Ann", "Bob", "Cat", "Dan", "Eve", "Eva", "Nil", None],
        "region": pyarrow.array([1, 1, 2, 2, 3, 3, None, 4], pyarrow.int8()),
    }
)
REGIONS = pyarrow.table(
    {"region": pyarrow.array([1, 2, 3, 5], pyarrow.int64()), "title": ["north", "south", "east", "west"]}
)
NOTHING = pyarrow.table(
    {"customer": pyarrow.array([], pyarrow.int64()), "x": pyarrow.array([], pyarrow.float64())},
)
TABLES = {"sales": sales(), "customers": CUSTOMERS, "regions": REGIONS, "nothing": NOTHING}

DIVIDED = {
    # rows
    "columns": "SELECT id, price FROM sales",
    "star": "SELECT * FROM sales",
    "exclude": "SELECT * EXCLUDE (id, cost) FROM sales",
    "where": "SELECT id FROM sales WHERE price > 2 AND product LIKE '%a%' OR day IS NULL",
    "expressions": "SELECT id + 1 AS next, upper(product) || '!' AS shout, price * 2, price * 2 FROM sales",
    "an alias in WHERE": "SELECT price * 2 AS twice FROM sales WHERE twice > 3",
    "case": "SELECT CASE WHEN price > 2 THEN 'dear' WHEN price IS NULL THEN NULL ELSE 'cheap' END AS c FROM sales",
    "names in other cases": "SELECT ID, PRODUCT, Sales.PRICE FROM SALES WHERE Id < 50",
    "the same name twice": "SELECT id, id, price AS id FROM sales",
    "from first": "FROM sales SELECT id WHERE paid",
    "a lambda": "SELECT id, list_transform([1, 2], lambda x: x + id) AS l FROM sales",
    "unnest": "SELECT id, unnest([1, 2]) AS u FROM sales",
    "dates": "SELECT day + INTERVAL 1 MONTH AS later, date_trunc('week', day) AS week, year(day) FROM sales",
    "structs": "SELECT {'a': id, 'b': product} AS s, [id, id] AS l FROM sales",
    "nothing": "SELECT customer, x + 1 AS y FROM nothing",
    "a name that is a keyword": 'SELECT id AS "select", price AS "a ""b""", cost AS _key FROM sales',
    # groups
    "group by": "SELECT product, count(*), sum(price), min(day), max(product) FROM sales GROUP BY product",
    "counts": "SELECT customer, count(*), count(price), count_if(paid), count(DISTINCT product) FROM sales GROUP BY 1",
    "sums": "SELECT customer, sum(id), sum(cost), sum(price), sum(customer) FROM sales GROUP BY customer",
    "means": "SELECT product, avg(id), avg(price), avg(cost), mean(customer) FROM sales GROUP BY product",
    "booleans": "SELECT product, bool_and(paid), bool_or(paid), min(paid) FROM sales GROUP BY product",
    "bits": "SELECT product, bit_and(id), bit_or(id), bit_xor(id) FROM sales GROUP BY product",
    "group by all": "SELECT product, paid, sum(price) FROM sales GROUP BY ALL",
    "group by an alias": "SELECT id % 3 AS third, count(*) AS n FROM sales GROUP BY third",
    "group by an expression": "SELECT year(day) * 100 + month(day) AS m, sum(cost) FROM sales GROUP BY year(day) "
    "* 100 + month(day)",
    "expressions of groups": "SELECT customer + 1, 2 * sum(price) / count(*) + customer FROM sales GROUP BY customer",
    "having": "SELECT product FROM sales GROUP BY product HAVING count(*) > 30 AND avg(price) > 2",
    "having an alias": "SELECT product, sum(price) AS s FROM sales GROUP BY product HAVING s > 90",
    "filter": "SELECT product, sum(price) FILTER (WHERE paid), count(*) FILTER (WHERE price > 2), "
    "avg(cost) FILTER (WHERE paid) FROM sales GROUP BY product",
    "distinct aggregates": "SELECT product, count(DISTINCT customer), sum(DISTINCT price), max(id) FROM sales "
    "GROUP BY product",
    "median and quantiles": "SELECT product, median(price), quantile_cont(price, [0.25, 0.75]), mode(paid) IS NULL "
    "FROM sales GROUP BY product",
    "lists": "SELECT product, list(id ORDER BY id), string_agg(id::VARCHAR, '-' ORDER BY id DESC) FROM sales "
    "GROUP BY product",
    "arg_max": "SELECT product, arg_max(id, price * 1000 + id), arg_min(day, id) FROM sales GROUP BY product",
    "variance": "SELECT customer, stddev(price), var_pop(price) FROM sales GROUP BY customer",
    "within group": "SELECT product, percentile_cont(0.5) WITHIN GROUP (ORDER BY price) FROM sales GROUP BY product",
    "extremes of dates": "SELECT min(day), max(day), max(day) - min(day) FROM sales",
    "sum of intervals and means of dates": "SELECT product, avg(day::TIMESTAMP) FROM sales GROUP BY product",
    "several extremes": "SELECT product, max(id, 2) FROM sales GROUP BY product",
    "all of it": "SELECT count(*), sum(id), avg(price), min(cost) FROM sales",
    "all of nothing": "SELECT count(*), count(x), sum(x), avg(x), max(x) FROM nothing",
    "groups of nothing": "SELECT customer, sum(x) FROM nothing GROUP BY customer",
    "all that nobody has": "SELECT count(*), sum(id), median(price) FROM sales WHERE id < 0",
    "distinct of all": "SELECT count(DISTINCT product), count(DISTINCT day) FROM sales",
    "a count over a bound": "SELECT count(*) > 10 AS many FROM sales HAVING count(*) > 5",
    "group by a constant": "SELECT 'x' AS c, count(*) FROM sales GROUP BY 'x'",
    "a sum beyond 64 bits": "SELECT sum(id + 9223372036854775000) AS s, sum(id)::DOUBLE / 3 FROM sales WHERE id < 600",
    "having with and": "SELECT customer FROM sales GROUP BY customer, product HAVING max(price) > min(price) "
    "AND customer IS NOT NULL",
    "constants are no groups": "SELECT 'a', count(*) FROM nothing GROUP BY ALL",
    "nothing but a constant": "SELECT 'a' FROM sales GROUP BY ALL",
    "any value": "SELECT product, any_value(product), count(*) FROM sales GROUP BY product",
    "one and the same now": "SELECT now() = current_timestamp AS a, today() = current_date AS b FROM sales",
    "an alias with its column's name": "SELECT upper(product) AS product, count(*) FROM sales GROUP BY product",
    "the group of all": "SELECT count(*), sum(price) FROM sales GROUP BY ()",
    "the group of all of nothing": "SELECT count(*), sum(x) FROM nothing GROUP BY ()",
    "the group of all beside others": "SELECT product, count(*) FROM sales GROUP BY (), product",
    # joins
    "inner join": "SELECT s.id, c.name FROM sales s JOIN customers c ON s.customer = c.customer",
    "using": "SELECT id, customer, name FROM sales JOIN customers USING (customer)",
    "left join": "SELECT id, s.customer, name FROM sales s LEFT JOIN customers c ON s.customer = c.customer",
    "right join": "SELECT id, c.customer, name FROM sales s RIGHT JOIN customers c ON s.customer = c.customer",
    "full join": "SELECT id, s.customer, c.customer, name FROM sales s FULL JOIN customers c ON s.customer = "
    "c.customer",
    "full join using": "SELECT customer, count(id), count(name) FROM sales FULL JOIN customers USING (customer) "
    "GROUP BY ALL",
    "semi join": "SELECT id FROM sales s SEMI JOIN customers c ON s.customer = c.customer AND c.region > 1",
    "anti join": "SELECT id, customer FROM sales s ANTI JOIN customers c ON s.customer = c.customer",
    "in a query": "SELECT id FROM sales WHERE customer IN (SELECT customer FROM customers WHERE region = 3) AND paid",
    "exists": "SELECT name FROM customers c WHERE EXISTS (SELECT 1 FROM sales s "
    "WHERE s.customer = c.customer AND s.paid)",
    "not exists": "SELECT name FROM customers c WHERE NOT EXISTS (SELECT * FROM sales s "
    "WHERE s.customer = c.customer AND s.price > c.region)",
    "exists in exists": "SELECT id FROM sales s WHERE EXISTS (SELECT 1 FROM customers c WHERE c.customer = s.customer "
    "AND EXISTS (SELECT 1 FROM regions r WHERE r.region = c.region)) AND NOT EXISTS (FROM nothing n WHERE n.x = s.id)",
    "comma join": "SELECT s.id FROM sales s, customers c WHERE s.customer = c.customer AND c.name > 'B' AND "
    "s.price > 1",
    "three tables": "SELECT id, name, title FROM sales s JOIN customers c USING (customer) JOIN regions r USING "
    "(region)",
    "three tables in any order": "SELECT id, title FROM sales s, regions r, customers c "
    "WHERE s.customer = c.customer AND r.region = c.region",
    "outer joins in a chain": "SELECT id, name, title FROM sales s LEFT JOIN customers c USING (customer) "
    "LEFT JOIN regions r ON c.region = r.region AND r.title <> 'north' WHERE s.id < 100",
    "a bound on what an outer join adds": "SELECT id, name FROM sales s LEFT JOIN customers c ON s.customer = "
    "c.customer "
    "AND c.region = 3 AND s.price > 2 WHERE c.name IS NULL OR c.name < 'F'",
    "the same key twice": "SELECT a.id, b.name, c.region FROM sales a JOIN customers b ON a.customer = b.customer "
    "JOIN customers c ON c.customer = b.customer",
    "self join": "SELECT a.id, b.id FROM sales a JOIN sales b ON a.id = b.id + 1 AND a.product = b.product",
    "join by expressions": "SELECT s.id, r.title FROM sales s JOIN regions r ON s.id % 4 + 1 = r.region",
    "join and group": "SELECT title, count(*) AS n, sum(price) FROM sales JOIN customers USING (customer) "
    "JOIN regions USING (region) GROUP BY title",
    "join and group by the key": "SELECT s.customer, count(*), max(name) FROM sales s JOIN customers c "
    "ON s.customer = c.customer GROUP BY s.customer",
    "join with nothing": "SELECT s.id, n.x FROM sales s LEFT JOIN nothing n ON s.customer = n.customer",
    "join of groups": "SELECT c.name, t.n FROM customers c JOIN (SELECT customer, count(*) AS n FROM sales GROUP "
    "BY 1) t "
    "ON t.customer = c.customer",
    "join of decimals": "SELECT a.id, b.id FROM sales a JOIN sales b ON a.cost = b.price WHERE a.id < 60",
    "columns named alike": "SELECT s.customer, c.customer FROM sales s JOIN customers c ON s.customer = c.customer",
    # distinct, windows, sets, nests
    "distinct": "SELECT DISTINCT product, paid FROM sales",
    "distinct of expressions": "SELECT DISTINCT price > 2, day IS NULL FROM sales",
    "window": "SELECT id, row_number() OVER (PARTITION BY customer ORDER BY id) AS n FROM sales",
    "windows that share a part": "SELECT id, sum(price) OVER (PARTITION BY customer), "
    "lag(id) OVER (PARTITION BY customer, product ORDER BY id) FROM sales",
    "window with a name": "SELECT id, rank() OVER w AS r FROM sales WINDOW w AS (PARTITION BY product ORDER BY id)",
    "window over all": "SELECT id, sum(id) OVER (ORDER BY id) AS running FROM sales",
    "qualify": "SELECT product, id FROM sales QUALIFY row_number() OVER (PARTITION BY product ORDER BY id DESC) <= 2",
    "window over groups": "SELECT product, sum(price) AS s, rank() OVER (ORDER BY sum(price) DESC, product) FROM "
    "sales GROUP BY product",
    "window over groups by part": "SELECT product, paid, sum(id), sum(sum(id)) OVER (PARTITION BY product) FROM "
    "sales GROUP BY 1, 2",
    "union all": "SELECT id, product FROM sales UNION ALL SELECT region, title FROM regions",
    "union": "SELECT customer FROM sales UNION SELECT customer FROM customers",
    "intersect": "SELECT customer FROM sales INTERSECT SELECT customer FROM customers",
    "except": "SELECT customer FROM customers EXCEPT SELECT customer FROM sales",
    "except all": "SELECT customer FROM sales EXCEPT ALL SELECT customer FROM customers",
    "union of groups": "SELECT product, count(*) FROM sales GROUP BY 1 UNION ALL SELECT title, region FROM regions",
    "groups of a union": "SELECT c, count(*) FROM (SELECT customer AS c FROM sales UNION ALL SELECT customer FROM "
    "customers) GROUP BY c",
    "union of three": "SELECT id FROM sales UNION ALL SELECT region FROM regions UNION SELECT 3 + id FROM sales",
    "cte": "WITH t AS (SELECT customer, sum(price) AS s FROM sales GROUP BY customer) SELECT * FROM t WHERE s > 10",
    "cte read twice": "WITH t AS (SELECT customer, sum(price) AS s FROM sales GROUP BY customer) "
    "SELECT a.customer, b.s FROM t a JOIN t b ON a.customer = b.customer",
    "ctes of ctes": "WITH a AS (SELECT * FROM sales WHERE paid), b AS (SELECT product, count(*) AS n FROM a GROUP "
    "BY product) "
    "SELECT n, count(*) FROM b GROUP BY n",
    "a cte with a table's name": "WITH sales AS (SELECT id FROM sales WHERE id < 9) SELECT count(*) FROM sales",
    "groups of groups": "SELECT n, count(*) FROM (SELECT customer, count(*) AS n FROM sales GROUP BY customer) "
    "GROUP BY n",
    "groups with fewer keys": "SELECT product, max(s) FROM (SELECT product, customer, sum(price) AS s FROM sales "
    "GROUP BY ALL) GROUP BY product",
}

IN_ORDER = {
    "order by": "SELECT id, price FROM sales ORDER BY price DESC, id",
    "nulls first": "SELECT id, product FROM sales ORDER BY product NULLS FIRST, id DESC",
    "limit": "SELECT id, price FROM sales ORDER BY price DESC NULLS LAST, id LIMIT 7",
    "limit and offset": "SELECT id FROM sales ORDER BY id LIMIT 10 OFFSET 15",
    "offset": "SELECT id FROM sales ORDER BY id OFFSET 200",
    "percent": "SELECT id FROM sales ORDER BY id LIMIT 10%",
    "order by what is not shown": "SELECT id FROM sales ORDER BY price * -1, id LIMIT 20",
    "order of groups": "SELECT product, count(*) AS n FROM sales GROUP BY product ORDER BY n DESC, product",
    "order by an aggregate": "SELECT product FROM sales GROUP BY product ORDER BY sum(id) DESC LIMIT 3",
    "order by a number": "SELECT product, min(id) FROM sales GROUP BY 1 ORDER BY 2",
    "order by an expression of a column that is shown": "SELECT -id AS id FROM sales ORDER BY id % 7, id LIMIT 20",
    "order by an expression of what is shown": "SELECT id, price * 2 AS twice FROM sales ORDER BY twice % 3, id DESC",
    "order by all": "SELECT DISTINCT paid, product FROM sales ORDER BY ALL",
    "distinct in order": "SELECT DISTINCT product FROM sales ORDER BY product DESC LIMIT 3",
    "order of a union": "SELECT id FROM sales UNION ALL SELECT region FROM regions ORDER BY id LIMIT 9",
    "a limit inside": "SELECT id, name FROM (SELECT * FROM sales ORDER BY id LIMIT 30) s JOIN customers c "
    "ON s.customer = c.customer ORDER BY id, name",
    "a limit in an order of its own": "SELECT count(*), min(id) FROM (SELECT id FROM sales ORDER BY id DESC LIMIT 5)",
    "nothing in order": "SELECT customer FROM nothing ORDER BY x LIMIT 3",
    "joined, grouped and cut": "SELECT name, sum(price) AS s FROM sales JOIN customers USING (customer) "
    "GROUP BY name ORDER BY s DESC, name LIMIT 3",
}

IN_ONE_TASK = {
    "scalar query": "SELECT id FROM sales WHERE price > (SELECT avg(price) FROM sales)",
    "correlated query": "SELECT name, (SELECT count(*) FROM sales s WHERE s.customer = c.customer) FROM customers c",
    "exists that counts": "SELECT name FROM customers c WHERE EXISTS (SELECT count(*) FROM sales s "
    "WHERE s.customer = c.customer)",
    "exists or": "SELECT name FROM customers c WHERE region = 3 OR EXISTS (SELECT 1 FROM sales s "
    "WHERE s.customer = c.customer)",
    "not in": "SELECT id FROM sales WHERE id NOT IN (SELECT region FROM regions)",
    "cross join": "SELECT s.id, r.title FROM sales s CROSS JOIN regions r WHERE s.id < 5",
    "a join without equality": "SELECT s.id, r.title FROM sales s JOIN regions r ON s.id < r.region",
    "recursive": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) "
    "SELECT n, count(id) FROM t LEFT JOIN sales ON sales.id % 5 = n GROUP BY n",
    "the group of all, and nothing of it": "SELECT 1 AS one FROM sales GROUP BY ()",
    "rollup": "SELECT product, paid, count(*) FROM sales GROUP BY ROLLUP (product, paid)",
    "distinct on": "SELECT DISTINCT ON (product) product, id FROM sales ORDER BY product, id",
    "row as a value": "SELECT regions FROM regions",
    "values": "SELECT v.x, count(id) FROM (VALUES (1), (2)) v(x) LEFT JOIN sales ON sales.id = v.x GROUP BY v.x",
    "pivot": "PIVOT (SELECT product, paid, id FROM sales) ON paid IN (true, false) USING count(id) GROUP BY product",
    "columns by pattern": "SELECT COLUMNS('c.*') FROM sales",
    "no table": "SELECT 1 AS one, 'x' AS x",
    "text and numbers joined": "SELECT s.id FROM sales s JOIN regions r ON s.id::VARCHAR = r.region::VARCHAR || '0' "
    "JOIN customers c ON c.name = s.id::VARCHAR OR c.region = r.region",
    "a limit of a part": "SELECT count(*) FROM (SELECT * FROM sales CROSS JOIN regions)",
    "a collation": "SELECT product COLLATE NOCASE AS p, count(*) FROM sales GROUP BY p",
    "positional": "SELECT a.id FROM sales a POSITIONAL JOIN sales b WHERE a.id = b.id",
}


@pytest.mark.parametrize("query", DIVIDED.values(), ids=DIVIDED.keys())
def test_divided(oracle: Callable[..., Any], query: str) -> None:
    oracle(TABLES).check(query)


@pytest.mark.parametrize("query", IN_ORDER.values(), ids=IN_ORDER.keys())
def test_in_order(oracle: Callable[..., Any], query: str) -> None:
    oracle(TABLES).check(query, ordered=True)


@pytest.mark.parametrize("query", IN_ONE_TASK.values(), ids=IN_ONE_TASK.keys())
def test_in_one_task(oracle: Callable[..., Any], query: str) -> None:
    oracle(TABLES).check(query, divided=False)
