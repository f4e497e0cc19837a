"""Every kind of table gets rows that PostgreSQL would have taken one by one, edge values and NULLs among them."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from chassis.lint.effects import tables_in_use
from chassis.lint.rows import ROWS, Filled, fill
from chassis.lint.trial import database
from chassis.tests.migrations.history import empty

TYPES = [
    "smallint", "integer", "bigint", "numeric", "numeric(3)", "numeric(8,3)", "real", "double precision", "money",
    "text", "varchar", "varchar(1)", "varchar(300)", "char(3)", "name", "boolean", "uuid", "date", "timestamp",
    "timestamptz", "timestamp(0)", "time", "timetz", "interval", "bytea", "json", "jsonb", "inet", "cidr",
    "macaddr", "macaddr8", "bit(4)", "bit varying(6)", "bit varying", "tsvector", "tsquery", "point", "line", "lseg",
    "box", "path", "polygon", "circle", "int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange",
    "int4multirange", "pg_lsn", "oid", "regclass", "jsonpath", "\"char\"", "txid_snapshot",
    "integer[]", "text[]", "varchar(5)[]", "uuid[]", "jsonb[]", "timestamptz[]", "numeric(6,2)[]",
    "mood", "mood[]", "positive", "mail", "country", "pair",
]  # fmt: skip
MADE = """
    CREATE TYPE mood AS ENUM ('sad', 'it''s ok', '100%');
    CREATE TYPE pair AS (a integer, b text);
    CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
    CREATE DOMAIN mail AS text CHECK (VALUE ~ '^[^@]+@[^@]+\\.[a-z]+$') NOT NULL;
    CREATE DOMAIN country AS char(2) CHECK (VALUE = upper(VALUE) AND VALUE IN ('DE', 'FR', 'US'));
"""
# What is made, and how many rows each table has then at least.
TABLES: dict[str, tuple[str, int]] = {
    "keys of two columns, of tenants": (
        """CREATE TABLE a (id integer PRIMARY KEY, name text UNIQUE);
           CREATE TABLE b (tenant integer REFERENCES a, id integer, PRIMARY KEY (tenant, id));
           CREATE TABLE c (tenant integer REFERENCES a, id integer, PRIMARY KEY (tenant, id));
           CREATE TABLE d (tenant integer NOT NULL, b integer NOT NULL, c integer NOT NULL, id serial PRIMARY KEY,
                FOREIGN KEY (tenant, b) REFERENCES b, FOREIGN KEY (tenant, c) REFERENCES c)""",
        ROWS,
    ),
    "a circle of required references": (
        """CREATE TABLE a (id integer PRIMARY KEY, b integer NOT NULL);
           CREATE TABLE b (id integer PRIMARY KEY, a integer NOT NULL REFERENCES a);
           ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b""",
        ROWS,
    ),
    "itself": (
        "CREATE TABLE a (id uuid PRIMARY KEY, parent uuid REFERENCES a, boss uuid NOT NULL REFERENCES a)",
        ROWS,
    ),
    "one for one": (
        """CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
           CREATE TABLE b (a bigint PRIMARY KEY REFERENCES a, doubled bigint GENERATED ALWAYS AS (a * 2) STORED)""",
        ROWS,
    ),
    "checks": (
        """CREATE TABLE a (id serial PRIMARY KEY, kind text NOT NULL CHECK (kind IN ('new', 'it''s done')),
                price numeric(8, 2) NOT NULL CHECK (price BETWEEN 5 AND 9.5), mail text CHECK (mail LIKE '%@%'),
                begins date, ends date, CHECK (ends > begins), code varchar(6) CHECK (code ~ '^[A-Z]+$'),
                share integer NOT NULL CHECK (share % 7 = 0 AND share > 0));
           CREATE TABLE b (a integer NOT NULL REFERENCES a)""",
        ROWS // 2,
    ),
    "partitions": (
        """CREATE TABLE a (id integer NOT NULL, at date NOT NULL) PARTITION BY RANGE (at);
           CREATE TABLE a_26 PARTITION OF a FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
           CREATE TABLE a_30 PARTITION OF a FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
           CREATE TABLE l (kind text NOT NULL) PARTITION BY LIST (kind);
           CREATE TABLE l_x PARTITION OF l FOR VALUES IN ('x', 'it''s'); CREATE TABLE l_rest PARTITION OF l DEFAULT;
           CREATE TABLE h (id uuid NOT NULL) PARTITION BY HASH (id);
           CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
           CREATE TABLE h_1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1)""",
        1,
    ),
    "an exclusion, and a unique boolean": (
        """CREATE TABLE a (room integer NOT NULL, during tsrange NOT NULL, EXCLUDE USING gist (during WITH &&));
           CREATE TABLE b (one boolean NOT NULL UNIQUE)""",
        2,
    ),
    "names that need quotes": (
        """CREATE SCHEMA "My Shop"; CREATE TABLE "My Shop"."100% Orders" ("%id" serial PRIMARY KEY, "a b" text,
                "select" integer NOT NULL CHECK ("select" > 10));
           CREATE TABLE "My Shop".of ("order" integer REFERENCES "My Shop"."100% Orders")""",
        ROWS // 2,
    ),
    "no column, and none but a default": (
        "CREATE TABLE a (); CREATE TABLE b (at timestamptz DEFAULT now())",
        1,
    ),
    "a trigger that refuses": (
        """CREATE TABLE a (id integer PRIMARY KEY);
           CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
           CREATE TRIGGER no BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION no()""",
        ROWS,
    ),
}


@pytest.fixture(scope="module")
def kept(postgres: Engine) -> Iterator[Connection]:
    with database(postgres.url) as connection:
        yield connection


@pytest.fixture
def connection(kept: Connection) -> Connection:
    empty(kept, schemas=['"My Shop"'])
    return kept


def make(connection: Connection, statements: str, own: str = "") -> Filled:
    connection.exec_driver_sql(statements.replace("%", "%%"))
    connection.commit()
    oids = list(tables_in_use(connection))
    connection.rollback()
    return fill(connection, oids, own)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_has_values(connection: Connection, kind: str) -> None:
    required = "" if kind == "mail" else "NOT NULL"
    filled = make(
        connection, f"{MADE} CREATE TABLE t (id serial PRIMARY KEY, may {kind}, must {kind} {required})"
    )
    assert filled.reasons == {}
    assert list(filled.rows.values()) == [ROWS]
    nulls = connection.scalar(text("SELECT count(*) FROM t WHERE may IS NULL"))
    assert (nulls == 0) if kind == "mail" else (0 < (nulls or 0) < ROWS)


@pytest.mark.parametrize(
    "kind", ["bigint", "text", "varchar(40)", "uuid", "timestamptz", "date", "numeric(9,2)", "mail"]
)
def test_what_must_be_unique_is(connection: Connection, kind: str) -> None:
    filled = make(connection, f"{MADE} CREATE TABLE t (a {kind} PRIMARY KEY, b {kind} UNIQUE)")
    assert (filled.reasons, list(filled.rows.values())) == ({}, [ROWS])


@pytest.mark.parametrize(("statements", "least"), TABLES.values(), ids=TABLES)
def test_every_table_has_rows_that_keep_its_constraints(
    connection: Connection, statements: str, least: int
) -> None:
    filled = make(connection, statements)
    assert filled.reasons == {}
    assert min(filled.rows.values()) >= least
    # PostgreSQL reads every row again for a constraint that is made anew.
    constraints = connection.execute(
        text("""
            SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint
             WHERE contype IN ('c', 'f') AND conrelid <> 0 AND conparentid = 0
        """)
    ).all()
    for table, name, definition in constraints:
        connection.exec_driver_sql(
            f"ALTER TABLE {table} DROP CONSTRAINT {name}; ALTER TABLE {table} ADD {definition}".replace(
                "%", "%%"
            )
        )


def test_edges_are_there(connection: Connection) -> None:
    make(connection, "CREATE TABLE t (a integer, b text, c varchar(7), d integer[])")
    found = connection.execute(
        text(
            "SELECT min(a), max(a), min(length(b)), max(length(b)), max(length(c)), min(cardinality(d)) FROM t"
        )
    ).one()
    assert tuple(found) == (-(2**31), 2**31 - 1, 0, 2000, 7, 0)


def test_the_next_row_gets_a_number_of_its_own(connection: Connection) -> None:
    make(connection, "CREATE TABLE t (id serial PRIMARY KEY, b smallserial UNIQUE)")
    connection.execute(text("INSERT INTO t DEFAULT VALUES"))


def test_what_cannot_be_filled_is_named_and_a_team_can_fill_it(connection: Connection) -> None:
    odd = "CREATE TABLE odd (a integer NOT NULL CHECK (a * a - 6 * a + 9 = 0 AND a::text ~ '^x|3$' AND a <> 3.5))"
    unknown = "CREATE TABLE hidden (a text NOT NULL CHECK (md5(a) = md5('open sesame' || '!')))"
    filled = make(connection, f"{odd}; {unknown}")
    assert filled.reasons == {"public.hidden": "no row was found that its constraints allow"}
    oids = list(tables_in_use(connection))
    connection.rollback()
    filled = fill(connection, oids, "INSERT INTO hidden VALUES ('open sesame!')")
    assert filled.reasons == {}


def test_rows_of_a_team_that_do_not_fit_are_refused(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE t (a integer)"))
    connection.commit()
    oids = list(tables_in_use(connection))
    connection.rollback()
    with pytest.raises(DBAPIError, match="does not exist"):
        fill(connection, oids, "INSERT INTO t (b) VALUES (1)")
