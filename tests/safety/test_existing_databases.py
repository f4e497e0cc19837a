"""What db/EXISTING_DATABASES.md says is true: its commands are run on databases that others have made."""

import ast
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.safety.test_two_projects import name_version_table, ready
from tests.support.code import Code
from tests.support.command_blocks import Block, Shell, broken_links, read_blocks, write_file
from tests.support.commands import UV, run
from tests.support.servers import Database, Server, server_programs, wait_until
from tests.support.workspaces import Workspace

GUIDE = "db/EXISTING_DATABASES.md"
BESIDE, NO_ALEMBIC, OLDER = (
    "Beside another project",
    "Tables and no Alembic",
    "From a phidata or agno workspace",
)


def blocks_of(workspace: Workspace, section: str) -> list[Block]:
    text = workspace.read(GUIDE).partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return read_blocks(text, f"{GUIDE}, {section}")


def block_with(workspace: Workspace, section: str, part: str) -> str:
    (block,) = [block for block in blocks_of(workspace, section) if part in block.text]
    return block.text


def run_section(
    workspace: Workspace,
    section: str,
    env: Mapping[str, str],
    before: Mapping[str, Callable[[], None]],
    sql: Callable[[str], None] | None = None,
) -> str:
    """Run a section's blocks in their order, in one shell, and return what they printed.

    Args:
        workspace: where they run.
        section: its heading.
        env: the shell's environment.
        before: what a person does before a block: a part of the block's text, and a function.
        sql: runs a block of SQL.
    """
    waiting, printed = dict(before), ""
    with tempfile.TemporaryDirectory() as scratch, Shell(workspace.path, env, Path(scratch)) as shell:
        for block in blocks_of(workspace, section):
            for part in [part for part in waiting if part in block.text]:
                waiting.pop(part)()
            if block.path is not None:
                write_file(block, workspace.path)
            elif block.is_commands:
                assert block.reason is None, block.where
                printed += shell.run(block.commands, block.where, timeout=300)
            elif block.language == "python":
                ast.parse(block.text, block.where)
            elif block.language == "sql" and sql:
                sql(block.text)
    assert not waiting, f"no block has {', '.join(waiting)}"
    return printed


@pytest.fixture
def env(workspace: Workspace, tmp_path: Path, debian: Server) -> dict[str, str]:
    """A terminal in the workspace's environment, with uv and PostgreSQL's programs, and the server in its settings."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("uv", "uvx"):
        (programs / name).symlink_to(UV.with_name(name))
    path = [workspace.path / ".venv/bin", programs, server_programs(), os.environ["PATH"]]
    settings = Database(debian, "unused").env
    del settings["DB_DATABASE"]
    return {**os.environ, **settings, "PATH": os.pathsep.join(map(str, path))}


def libpq_of(database: Database) -> dict[str, str]:
    server = database.server
    where = {"PGHOST": server.host, "PGPORT": str(server.port), "PGDATABASE": database.name}
    return {**where, "PGUSER": server.user, "PGPASSWORD": server.password or ""}


def client(database: Database, program: str, *options: str, stdin: str = "") -> str:
    """Run a program of PostgreSQL's on a database."""
    return run(server_programs() / program, *options, env=libpq_of(database), stdin=stdin).output


def schema_of(database: Database) -> str:
    options = ("--schema-only", "--no-owner", "--no-privileges", "--exclude-table=alembic_version")
    return client(database, "pg_dump", *options)


def outline(database: Database) -> dict[str, list[str]]:
    """All that PostgreSQL says of a database but the version table, by its kind and name; columns in no order.

    It is said of what a dump restores, as PostgreSQL may print an expression otherwise when it has read it again.
    """
    restored = database.server.new_database()
    client(restored, "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", stdin=schema_of(database))
    dumped = schema_of(restored)
    database.server.execute(f"DROP DATABASE {restored.name}")
    found: dict[str, list[str]] = {}
    for entry in re.split(r"^--\n-- Name: ", dumped, flags=re.MULTILINE)[1:]:
        head, _, body = entry.partition("\n")
        lines = (line.rstrip(",") for line in body.splitlines())
        found.setdefault(head.partition("; Owner:")[0], []).extend(
            sorted(line for line in lines if line and not line.startswith(("--", "\\", "SET ")))
        )
    return found


def rows(database: Database, schemas: str = "public", without: str = "") -> dict[str, list[str]]:
    """All rows of all tables, but for a column that is new."""
    named = (
        "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
        f" AND relnamespace::regnamespace::text = ANY ('{{{schemas}}}') ORDER BY 1"
    )
    return {
        table: [row for (row,) in database.rows(f"SELECT (to_jsonb(t) - '{without}')::text FROM {table} t")]
        for (table,) in database.rows(named)
    }


# Beside another project


@pytest.fixture
def shared(database: Database) -> Database:
    """A database that another project migrates, of which nothing more is known."""
    database.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    database.execute("INSERT INTO alembic_version VALUES ('their1')")
    database.execute("CREATE TABLE theirs (a int); INSERT INTO theirs VALUES (1)")
    return database


def test_beside_another_project(workspace: Workspace, shared: Database, env: dict[str, str]) -> None:
    stopped = workspace.alembic("upgrade", "head", env=shared.env, check=False)
    assert stopped.code != 0
    said = " ".join(block_with(workspace, BESIDE, "None of this code's tables").split())
    for part in said.split("…"):
        assert part.strip(" .") in stopped.output

    def set_version_table() -> None:
        settings = block_with(workspace, BESIDE, "version_table =")
        found = dict(re.findall(r"^(\w+) =[ ]*(.*)$", settings, re.MULTILINE))
        name_version_table(Code(workspace.path, Path(), None), found["version_table"])

    printed = run_section(
        workspace, BESIDE, {**env, "DB_DATABASE": shared.name}, {"upgrade head": set_version_table}
    )
    assert "(head)" in printed
    assert "No new upgrade operations detected." in printed
    assert shared.rows("SELECT version_num FROM alembic_version") == [("their1",)]
    assert shared.rows("SELECT a FROM theirs") == [(1,)]
    assert len(shared.rows("SELECT version_num FROM agent_version")) == 1


@pytest.mark.full
def test_a_version_table_that_is_renamed(installed: Workspace, code: Code, database: Database) -> None:
    assert code.alembic(database.env, "upgrade", "head")[0] == 0
    renamed = code.newer(code.path.parent / "renamed")
    name_version_table(renamed, "agent_version")
    database.execute(block_with(installed, BESIDE, "RENAME TO"))
    before = outline(database)
    assert ready(renamed, database).strip() == "('', '')"
    exit_code, output = renamed.alembic(database.env, "upgrade", "head")
    assert exit_code == 0, output
    # The release before it.
    assert ready(code, database).strip() != "('', '')"
    exit_code, output = code.alembic(database.env, "upgrade", "head")
    assert exit_code == 255
    assert "already exists" in output
    assert outline(database) == before
    assert database.rows("SELECT to_regclass('alembic_version')") == [(None,)]
    assert "No new upgrade operations detected." in renamed.alembic(database.env, "check")[1]


@pytest.mark.full
def test_two_services_of_this_template(installed: Workspace, code: Code, database: Database) -> None:
    billing = code.newer(code.path.parent / "billing")
    role = f"billing_{os.getpid()}"
    text = block_with(installed, BESIDE, "CREATE SCHEMA")
    text = text.replace('"agent_api"', f'"{database.name}"').replace("billing", role)
    database.execute(text)
    name_version_table(billing, "alembic_version", role)
    theirs = Database(Server(database.server.host, database.server.port, role, "change-me"), database.name)
    code.add("long", 'op.execute("SELECT pg_sleep(60)")')
    long = code.start(database.env, "upgrade", "head")
    try:
        wait_until(lambda: database.running("pg_sleep"), 30)
        exit_code, output = billing.alembic(theirs.env, "upgrade", "head")
        assert exit_code == 0, output
        assert long.poll() is None
    finally:
        long.terminate()
        long.communicate(timeout=30)
    assert "No new upgrade operations detected." in billing.alembic(theirs.env, "check")[1]
    assert ready(billing, theirs).strip() == "('', '')"
    theirs.execute("INSERT INTO conversations (id, revision) VALUES ('theirs', '1')")
    assert database.rows("SELECT count(*) FROM conversations") == [(0,)]
    assert database.rows(f"SELECT id FROM {role}.conversations") == [("theirs",)]
    exit_code, output = billing.alembic(theirs.env, "downgrade", "base")
    assert exit_code == 0, output
    assert database.rows("SELECT to_regclass('conversations')::text") == [("conversations",)]


def test_what_the_page_says_of_others(installed: Workspace) -> None:
    """Its links, and what it says of other pages; ten minutes are 250 words of prose a minute."""
    assert list(broken_links(installed.path, [installed.path / GUIDE])) == []
    roles = installed.read("db/SAFE_MIGRATIONS.md").partition("\n## Two roles\n")[2]
    assert len(re.findall(r"^REVOKE ALL", roles, re.MULTILINE)) == 2
    prose = re.sub(r"^ *```.*?^ *```$", "", installed.read(GUIDE), flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) <= 2500


# Tables and no Alembic

SHOP = r"""
CREATE SCHEMA sales;
CREATE SCHEMA stock;
CREATE TYPE mood AS ENUM ('fine', 'so-so', 'it''s bad');
CREATE TYPE sales.order_state AS ENUM ('new', 'paid', 'sent', 'returned');
CREATE DOMAIN percentage AS numeric CHECK (VALUE BETWEEN 0 AND 100);
CREATE FUNCTION stock.net(gross numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT round($1 / 1.19, 2)';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END';

CREATE TABLE countries (
    code char(2) PRIMARY KEY,
    name varchar(80) NOT NULL UNIQUE,
    in_union boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE countries IS 'ISO 3166: two letters';
CREATE TABLE currencies (
    code char(3) PRIMARY KEY CHECK (code = upper(code)),
    digits smallint NOT NULL DEFAULT 2 CHECK (digits BETWEEN 0 AND 4)
);
CREATE TABLE customers (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    email text NOT NULL,
    first_name varchar(50),
    last_name varchar(50),
    full_name text GENERATED ALWAYS AS (coalesce(first_name, '') || ' ' || coalesce(last_name, '')) STORED,
    country char(2) REFERENCES countries ON UPDATE CASCADE,
    mood mood NOT NULL DEFAULT 'fine',
    tags text[] NOT NULL DEFAULT '{}',
    settings jsonb NOT NULL DEFAULT '{"mail": true}',
    born date CHECK (born > '1900-01-01'),
    invited_by bigint REFERENCES customers ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamp DEFAULT now()
);
COMMENT ON COLUMN customers.email IS 'as typed; "lower" is what counts: 100 %';
CREATE UNIQUE INDEX customers_email ON customers (lower(email));
CREATE INDEX customers_tags ON customers USING gin (tags);
CREATE INDEX customers_settings ON customers USING gin (settings jsonb_path_ops);
CREATE INDEX customers_name ON customers (last_name DESC NULLS LAST, first_name) INCLUDE (email);
CREATE INDEX customers_new ON customers (created_at DESC) WHERE mood <> 'fine';
CREATE INDEX customers_pattern ON customers (last_name varchar_pattern_ops);
CREATE TRIGGER customers_touch BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE addresses (
    id serial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    street text NOT NULL,
    zip varchar(10),
    country char(2) NOT NULL CONSTRAINT addresses_in_known_country REFERENCES countries,
    UNIQUE (customer_id, street)
);
CREATE INDEX ON addresses (customer_id);
ALTER TABLE customers ADD COLUMN main_address integer CONSTRAINT customers_main_address
    REFERENCES addresses DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE categories (
    id integer GENERATED ALWAYS AS IDENTITY (START WITH 100 INCREMENT BY 10) PRIMARY KEY,
    parent_id integer REFERENCES categories,
    name text NOT NULL,
    CONSTRAINT categories_no_own_parent CHECK (parent_id <> id),
    CONSTRAINT categories_name UNIQUE NULLS NOT DISTINCT (parent_id, name)
);
CREATE TABLE products (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    sku varchar(20) NOT NULL UNIQUE,
    name text NOT NULL COLLATE "C",
    category_id integer NOT NULL REFERENCES categories,
    price numeric(10, 2) NOT NULL CHECK (price >= 0),
    net numeric GENERATED ALWAYS AS (stock.net(price)) STORED,
    currency char(3) NOT NULL DEFAULT 'EUR' REFERENCES currencies,
    weight real,
    sizes integer[][],
    attributes jsonb,
    picture bytea,
    search tsvector GENERATED ALWAYS AS (to_tsvector('simple', name)) STORED,
    discontinued boolean
);
CREATE INDEX products_search ON products USING gin (search);
CREATE INDEX products_colour ON products ((attributes ->> 'colour'));
CREATE INDEX products_category_price ON products (category_id, price DESC);
CREATE INDEX ix_products_name ON products (name);
CREATE TABLE product_pictures (
    product_id uuid REFERENCES products ON DELETE CASCADE,
    number smallint,
    url text NOT NULL CHECK (url ~ '^https?://' AND length(url) < 2000),
    PRIMARY KEY (product_id, number)
);
CREATE TABLE related_products (
    one uuid REFERENCES products,
    other uuid REFERENCES products,
    strength double precision DEFAULT 0.5,
    PRIMARY KEY (one, other),
    CHECK (one <> other)
);
CREATE TABLE product_categories (
    product_id uuid NOT NULL REFERENCES products,
    category_id integer NOT NULL REFERENCES categories,
    PRIMARY KEY (product_id, category_id)
);
CREATE TABLE product_prices (
    product_id uuid REFERENCES products,
    valid daterange,
    price numeric(10, 2) NOT NULL,
    PRIMARY KEY (product_id, valid)
);
CREATE TABLE brands (id smallserial PRIMARY KEY, name text UNIQUE, site text);
CREATE TABLE sales.orders (
    id bigserial PRIMARY KEY,
    number serial NOT NULL UNIQUE,
    customer_id bigint NOT NULL REFERENCES public.customers,
    state sales.order_state NOT NULL DEFAULT 'new',
    history sales.order_state[] NOT NULL DEFAULT '{}',
    mood mood,
    total numeric(12, 2) NOT NULL DEFAULT 0,
    placed_at timestamp NOT NULL DEFAULT now(),
    sent_at timestamp,
    note text,
    CONSTRAINT sent_after_placed CHECK (sent_at IS NULL OR sent_at >= placed_at),
    CONSTRAINT returned_was_sent CHECK (state <> 'returned' OR sent_at IS NOT NULL)
);
CREATE INDEX orders_open ON sales.orders (customer_id) WHERE state IN ('new', 'paid');
CREATE INDEX orders_placed ON sales.orders USING brin (placed_at);
CREATE TABLE sales.order_lines (
    order_id bigint REFERENCES sales.orders ON DELETE CASCADE,
    line smallint,
    product_id uuid NOT NULL REFERENCES public.products,
    quantity integer NOT NULL DEFAULT 1 CHECK (quantity > 0),
    price numeric(10, 2) NOT NULL,
    amount numeric(12, 2) GENERATED ALWAYS AS (price * quantity) STORED,
    PRIMARY KEY (order_id, line)
);
CREATE TABLE sales.line_discounts (
    order_id bigint,
    line smallint,
    reason text,
    share numeric(4, 3) NOT NULL,
    PRIMARY KEY (order_id, line, reason),
    FOREIGN KEY (order_id, line) REFERENCES sales.order_lines ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE TABLE sales.payments (
    id uuid PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES sales.orders DEFERRABLE,
    amount money NOT NULL,
    delay interval,
    from_ip inet,
    raw json,
    at time with time zone
);
CREATE TABLE sales.invoices (number text PRIMARY KEY, order_id bigint UNIQUE REFERENCES sales.orders, pdf bytea);
CREATE TABLE sales.coupons (code varchar(12) PRIMARY KEY, share numeric(4, 3) NOT NULL, valid daterange NOT NULL);
CREATE TABLE sales.coupon_uses (
    coupon varchar(12) REFERENCES sales.coupons,
    order_id bigint REFERENCES sales.orders,
    used_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (coupon, order_id)
);
CREATE TABLE sales.returns (order_id bigint PRIMARY KEY REFERENCES sales.orders, reason varchar(200) DEFAULT '');
CREATE TABLE stock.halls (id smallint PRIMARY KEY, name text NOT NULL, plan point);
CREATE TABLE stock.shelves (hall smallint REFERENCES stock.halls, number integer, PRIMARY KEY (hall, number));
CREATE TABLE stock.items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id uuid NOT NULL REFERENCES public.products,
    hall smallint,
    shelf integer,
    amount integer NOT NULL DEFAULT 0,
    CONSTRAINT items_shelf FOREIGN KEY (hall, shelf) REFERENCES stock.shelves (hall, number) MATCH FULL
);
CREATE TABLE stock.reservations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hall int4range NOT NULL,
    during tstzrange NOT NULL,
    purpose text,
    CONSTRAINT reservations_no_overlap EXCLUDE USING gist (hall WITH &&, during WITH &&) WHERE (purpose <> 'draft')
);
CREATE TABLE stock.moves (
    id bigint GENERATED ALWAYS AS IDENTITY,
    item_id bigint NOT NULL REFERENCES stock.items,
    moved_at timestamptz NOT NULL,
    amount integer NOT NULL,
    PRIMARY KEY (id, moved_at)
) PARTITION BY RANGE (moved_at);
CREATE INDEX moves_item ON stock.moves (item_id, moved_at DESC);
CREATE TABLE stock.moves_2025 PARTITION OF stock.moves FOR VALUES FROM ('2025-01-01 00:00:00+00') TO ('2026-01-01 00:00:00+00');
CREATE TABLE stock.moves_rest PARTITION OF stock.moves DEFAULT;
CREATE TABLE stock.counts (item_id bigint REFERENCES stock.items, day date, amount integer NOT NULL, PRIMARY KEY (item_id, day));
CREATE TABLE employees (id serial PRIMARY KEY, name text NOT NULL, boss integer REFERENCES employees, department integer);
CREATE TABLE departments (id serial PRIMARY KEY, name text NOT NULL, head integer REFERENCES employees);
ALTER TABLE employees ADD CONSTRAINT employees_department FOREIGN KEY (department) REFERENCES departments;
CREATE TABLE shifts (
    employee integer NOT NULL REFERENCES employees,
    day date NOT NULL,
    hours numeric(4, 2) NOT NULL DEFAULT 8 CHECK (hours > 0 AND hours <= 24),
    PRIMARY KEY (employee, day)
);
CREATE TABLE audit_log (
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text DEFAULT CURRENT_USER,
    what text,
    row_before jsonb,
    row_after jsonb
);
CREATE INDEX audit_log_at ON audit_log (at);
CREATE UNLOGGED TABLE sessions (token text PRIMARY KEY, customer_id bigint, expires timestamptz NOT NULL, data jsonb);
CREATE INDEX sessions_token_hash ON sessions USING hash (token);
CREATE TABLE "Old Imports" ("Row No" integer PRIMARY KEY, "class" text, "select" boolean DEFAULT true);
CREATE TABLE newsletters (id integer PRIMARY KEY, subject varchar NOT NULL, body text, sent date);
CREATE TABLE newsletter_readers (
    newsletter integer REFERENCES newsletters,
    customer bigint REFERENCES customers,
    opened timestamptz,
    PRIMARY KEY (newsletter, customer)
);
CREATE TABLE reviews (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    product_id uuid NOT NULL REFERENCES products ON DELETE CASCADE,
    customer_id bigint REFERENCES customers ON DELETE SET NULL,
    stars smallint NOT NULL CHECK (stars IN (1, 2, 3, 4, 5)),
    lang varchar(2) CHECK (lang IN ('de', 'en', 'fr')),
    body text
);
CREATE UNIQUE INDEX reviews_one_each ON reviews (product_id, customer_id) WHERE customer_id IS NOT NULL;
CREATE TABLE review_votes (
    review_id bigint REFERENCES reviews,
    customer_id bigint REFERENCES customers,
    up boolean NOT NULL,
    PRIMARY KEY (review_id, customer_id)
);
CREATE TABLE settings (key text PRIMARY KEY, value jsonb NOT NULL DEFAULT 'null');
CREATE TABLE tax_rates (country char(2) REFERENCES countries, since date, rate numeric(5, 4) NOT NULL, PRIMARY KEY (country, since));
CREATE TABLE carts (customer bigint PRIMARY KEY REFERENCES customers, changed_at timestamptz(0) DEFAULT now(), ip cidr);
CREATE TABLE cart_lines (cart bigint REFERENCES carts ON DELETE CASCADE, product uuid REFERENCES products, PRIMARY KEY (cart, product));
CREATE TABLE bonuses (employee integer PRIMARY KEY REFERENCES employees, share percentage NOT NULL, flags bit(4) DEFAULT B'0101');
CREATE TABLE runs (id serial PRIMARY KEY, job text NOT NULL, ended timestamptz);

CREATE VIEW sales.readers AS SELECT id, email FROM customers WHERE settings @> '{"mail":true}'::jsonb;
CREATE MATERIALIZED VIEW sales.turnover AS
    SELECT placed_at::date AS day, sum(total) AS total FROM sales.orders GROUP BY placed_at::date;
CREATE UNIQUE INDEX turnover_day ON sales.turnover (day);
CREATE SEQUENCE sales.invoice_numbers START 2026001;

INSERT INTO countries VALUES ('DE', 'Germany', true), ('CH', 'Switzerland', false);
INSERT INTO currencies VALUES ('EUR', 2), ('CHF', 2);
INSERT INTO customers (email, first_name, last_name, country, mood, tags)
    SELECT n || '@example.com', 'First ' || n, 'Last ' || n, 'DE', 'it''s bad', ARRAY['a', 'b'] FROM generate_series(1, 200) n;
INSERT INTO addresses (customer_id, street, country) SELECT id, 'Street ' || id, 'CH' FROM customers;
UPDATE customers SET main_address = id;
INSERT INTO categories (name) VALUES ('tea'), ('cake');
INSERT INTO products (sku, name, category_id, price, sizes, attributes)
    SELECT 'sku-' || n, 'Product ' || n, 100, n, '{{1,2},{3,4}}', '{"colour": "red"}' FROM generate_series(1, 50) n;
INSERT INTO product_pictures SELECT id, 1, 'https://example.com/' || sku FROM products;
INSERT INTO related_products SELECT a.id, b.id FROM products a, products b WHERE a.sku = 'sku-1' AND b.sku <> 'sku-1';
INSERT INTO product_categories SELECT id, 110 FROM products;
INSERT INTO product_prices SELECT id, '[2025-01-01,2026-01-01)', 5 FROM products;
INSERT INTO brands (name) VALUES ('one');
INSERT INTO sales.orders (customer_id, state, history, total) SELECT id, 'paid', '{new,paid}', id FROM customers;
INSERT INTO sales.order_lines (order_id, line, product_id, price)
    SELECT o.id, 1, p.id, 2 FROM sales.orders o, products p WHERE p.sku = 'sku-1';
INSERT INTO sales.line_discounts SELECT id, 1, 'regular', 0.1 FROM sales.orders;
INSERT INTO sales.payments SELECT gen_random_uuid(), id, 5, '2 days', '10.0.0.1', '{"a":  1}', '10:00+02' FROM sales.orders;
INSERT INTO sales.invoices SELECT 'I' || id, id, '\x00ff' FROM sales.orders;
INSERT INTO sales.coupons VALUES ('TEN', 0.1, '[2025-01-01,2027-01-01)');
INSERT INTO sales.coupon_uses SELECT 'TEN', id FROM sales.orders;
INSERT INTO sales.returns VALUES (1, 'broken');
INSERT INTO stock.halls VALUES (1, 'North', '(1,2)');
INSERT INTO stock.shelves SELECT 1, n FROM generate_series(1, 9) n;
INSERT INTO stock.items (product_id, hall, shelf, amount) SELECT id, 1, 1, 7 FROM products;
INSERT INTO stock.reservations (hall, during, purpose) VALUES ('[1,2]', '[2026-01-01,2026-02-01)', 'count');
INSERT INTO stock.moves (item_id, moved_at, amount) SELECT id, '2025-06-01', 1 FROM stock.items;
INSERT INTO stock.moves (item_id, moved_at, amount) SELECT id, '2026-06-01', 1 FROM stock.items;
INSERT INTO stock.counts SELECT id, '2025-12-31', 7 FROM stock.items;
INSERT INTO departments (name) VALUES ('sales');
INSERT INTO employees (name, department) VALUES ('Ann', 1), ('Ben', 1);
UPDATE departments SET head = 1;
INSERT INTO shifts (employee, day) VALUES (1, '2026-01-02');
INSERT INTO audit_log (what, row_after) VALUES ('made', '{}');
INSERT INTO sessions (token, expires) VALUES ('t', now());
INSERT INTO "Old Imports" VALUES (1, 'x', false);
INSERT INTO newsletters VALUES (1, 'News', 'all of it', '2026-01-01');
INSERT INTO newsletter_readers (newsletter, customer) SELECT 1, id FROM customers;
INSERT INTO reviews (product_id, customer_id, stars, lang) SELECT id, 1, 5, 'en' FROM products;
INSERT INTO review_votes SELECT id, 1, true FROM reviews;
INSERT INTO settings VALUES ('open', 'true');
INSERT INTO tax_rates VALUES ('DE', '2007-01-01', 0.19);
INSERT INTO carts (customer) VALUES (1);
INSERT INTO cart_lines SELECT 1, id FROM products;
INSERT INTO bonuses VALUES (1, 5);
INSERT INTO runs (job) VALUES ('nightly');
REFRESH MATERIALIZED VIEW sales.turnover;
"""
SCHEMAS = "public,sales,shop,stock"

# What a person corrects in the classes, by the guide's table: round by round, as `check` tells it. Each is the class, a text
# in it, and what takes its place.
Corrections = tuple[tuple[str, str, str], ...]
CORRECTIONS: tuple[Corrections, ...] = (
    (
        (
            "Halls",
            "Mapped[object | None] = mapped_column(NullType)",
            'Mapped[str | None] = mapped_column(DOMAIN("point", Text(), create_type=False))',
        ),
    ),
    (
        ("Customers", '"customers_email", unique', '"customers_email", text("lower(email)"), unique'),
        ("Products", '"products_colour"', '"products_colour", text("(attributes ->> \'colour\')")'),
    ),
    (
        ("Customers", '"customers_name", "last_name"', '"customers_name", text("last_name DESC NULLS LAST")'),
        ("Customers", '"customers_new", "created_at"', '"customers_new", text("created_at DESC")'),
        ("Products", '"category_id", "price"', '"category_id", text("price DESC")'),
        ("Moves", '"item_id", "moved_at"', '"item_id", text("moved_at DESC")'),
        (
            "Categories",
            'name="categories_name"',
            'name="categories_name", postgresql_nulls_not_distinct=True',
        ),
        (
            "Reservations",
            'name="reservations_pkey"),',
            'name="reservations_pkey"),\n        ExcludeConstraint(("hall", "&&"), ("during", "&&"),'
            ' name="reservations_no_overlap", using="gist", where=text("purpose <> \'draft\'")),',
        ),
        ("Sessions", '_using="hash"),', '_using="hash"),\n        {"prefixes": ["UNLOGGED"]},'),
        ("Halls", "SmallInteger, primary_key=True", "SmallInteger, primary_key=True, autoincrement=False"),
        ("Newsletters", "Integer, primary_key=True", "Integer, primary_key=True, autoincrement=False"),
        ("OldImports", "Integer, primary_key=True", "Integer, primary_key=True, autoincrement=False"),
        (
            "Orders",
            "mapped_column(Integer, nullable=False)",
            'mapped_column(DOMAIN("serial", Integer(), create_type=False), nullable=False)',
        ),
        ("Moves", '{"schema"', '{"postgresql_partition_by": "RANGE (moved_at)", "schema"'),
    ),
)
PARTITIONS = ("Moves2025", "MovesRest")


def class_in(text: str, name: str) -> str:
    return text[text.index(f"class {name}(Base):") :].partition("\n\n\n")[0]


class Taken:
    """The shop's classes, as they are corrected."""

    def __init__(self, workspace: Workspace, env: dict[str, str]) -> None:
        self.workspace, self.env = workspace, env
        self.path = workspace.path / "db/tables/shop.py"

    def replace(self, name: str, old: str, new: str) -> None:
        text = self.path.read_text(encoding="utf-8")
        found = class_in(text, name)
        assert found.count(old) == 1, f"{name}: {old}\n{found}"
        self.path.write_text(text.replace(found, found.replace(old, new)), encoding="utf-8")

    def tidy(self) -> None:
        dialect = "from sqlalchemy.dialects.postgresql import"
        text = self.path.read_text(encoding="utf-8")
        if "ExcludeConstraint" not in text.partition("\nclass ")[0]:
            text = text.replace(dialect, f"{dialect} DOMAIN, ExcludeConstraint\n{dialect}", 1)
        self.path.write_text(text, encoding="utf-8")
        for command in (("check", "--quiet", "--fix", "--exit-zero"), ("format", "--quiet")):
            self.workspace.run("ruff", *command, self.path)

    def correct(self) -> None:
        """Do what the guide's table says of each thing that is told, and see that all of it is told."""
        env, said = {**self.env, "DB_DATABASE": "shop_copy"}, ""
        for corrections in CORRECTIONS:
            said += self.workspace.alembic("check", env=env, check=False).output
            for correction in corrections:
                self.replace(*correction)
            self.tidy()
            self.workspace.alembic("upgrade", "head", env=env)
        text = self.path.read_text(encoding="utf-8")
        for name in PARTITIONS:
            text = text.replace(class_in(text, name), "")
        self.path.write_text(text, encoding="utf-8")
        self.tidy()
        table = self.workspace.read(GUIDE).partition("\n| What it says |")[2].partition("\n\n")[0]
        told = [line.split(" | ")[0] for line in table.splitlines()[2:]]
        assert len(told) == 10
        for row in told:
            for message in re.findall(r"`([^`]+)`", row):
                for part in message.split("…"):
                    assert part.strip() in said, f"{part!r} is not in what was printed:\n{said}"


@pytest.fixture
def shop(debian: Server) -> Iterator[Database]:
    """The shop's production, which is as the guide calls it; its programs have a role of their own."""
    debian.execute("CREATE DATABASE shop")
    shop = Database(debian, "shop")
    shop.execute(SHOP)
    shop.execute(
        "CREATE ROLE shop_app LOGIN PASSWORD 'shop'; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO shop_app;"
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop_app"
    )
    yield shop
    for name in ("shop", "shop_copy", "shop_fresh"):
        debian.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    debian.execute("DROP ROLE shop_app")


@pytest.mark.full
def test_tables_and_no_alembic(workspace: Workspace, shop: Database, env: dict[str, str]) -> None:
    """The guide's six steps, to the letter, for a shop of forty tables."""
    server = shop.server
    app = Server(server.host, server.port, "shop_app", "shop")
    fresh, copy = Database(server, "shop_fresh"), Database(server, "shop_copy")
    classes = Taken(workspace, env)
    files = "SELECT relname, relfilenode FROM pg_class WHERE relnamespace::regnamespace::text = ANY (%s) AND relkind = 'r'"
    before, rows_before = outline(shop), rows(shop, SCHEMAS)
    with shop.connect() as connection:
        files_before = set(connection.execute(files, [SCHEMAS.split(",")]).fetchall())
    assert len(rows_before) >= 40
    assert all(rows_before.values()), "each table has rows"

    def assert_nothing_is_lost() -> None:
        """Each row is there, in the file in which it was."""
        now = rows(shop, SCHEMAS, without="language")
        now["runs"] = now.pop("shop.runs", now["runs"])
        assert {table: now[table] for table in rows_before} == rows_before
        with shop.connect() as connection:
            assert files_before <= set(connection.execute(files, [SCHEMAS.split(",")]).fetchall())

    def a_commit_of_the_baseline() -> None:
        """A fresh database has all that the shop had, and nothing else but this service's own."""
        assert server.rows("SELECT count(*) FROM newsletters", "shop_copy") == [(1,)]
        made = outline(fresh)
        moved = {
            name: [line.replace("public.runs", "shop.runs") for line in lines]
            for name, lines in before.items()
        }
        moved = {
            re.sub(r"^(runs\S*.*Schema: )public", r"\1shop", name): lines for name, lines in moved.items()
        }
        assert {name: lines for name, lines in made.items() if name in moved} == moved
        workspace.run("git", "init", "-q")
        workspace.run("git", "add", "-A")
        workspace.run("git", "commit", "-q", "-m", "The shop")
        text = block_with(workspace, NO_ALEMBIC, "language: Mapped").strip()
        body = "body: Mapped[str | None] = mapped_column(Text)"
        classes.replace("Newsletters", body, f"{body}\n    {text}")

    def an_upgrade_that_is_too_early() -> None:
        assert app.rows("SELECT job FROM runs", "shop") == [("nightly",)]
        early = workspace.alembic("upgrade", "head", env={**env, "DB_DATABASE": "shop"}, check=False)
        assert early.code != 0
        assert "already exists" in early.output
        assert_nothing_is_lost()

    quoted = "".join(f"%{byte:02X}" for byte in (server.password or "").encode())
    production = f"postgresql://{server.user}:{quoted}@{server.host}:{server.port}/shop"
    printed = run_section(
        workspace,
        NO_ALEMBIC,
        {**env, "PRODUCTION": production},
        {
            "BEFORE=$(": classes.correct,
            "Language of newsletters": a_commit_of_the_baseline,
            "before.dump": an_upgrade_that_is_too_early,
        },
        shop.execute,
    )
    assert "CREATE TABLE runs (" in printed
    assert "CREATE TABLE stock.moves_rest PARTITION OF stock.moves DEFAULT;" in printed
    assert printed.count("No new upgrade operations detected.") == 4
    assert printed.count("ok  upgrade head again") == 2, "verify and lint are content"

    # Production, its copy and a database from nothing are the same.
    assert outline(shop) == outline(copy) == outline(fresh)
    assert_nothing_is_lost()
    # The shop's programs find their table, and write to it as before.
    app.execute("INSERT INTO runs (job) VALUES ('as ever')", "shop")
    assert shop.rows("SELECT job FROM shop.runs ORDER BY id") == [("nightly",), ("as ever",)]
    revision = next((workspace.path / "db/migrations/versions").glob("*_language_of_newsletters.py"))
    operations = re.findall(r"^    op\.\w+\(.*$", revision.read_text(encoding="utf-8"), re.MULTILINE)
    assert operations == [
        '    op.add_column("newsletters", sa.Column("language", sa.Text(), nullable=True))',
        '    op.drop_column("newsletters", "language")',
    ]
    workspace.run("ruff", "check", "db")
    workspace.run("ruff", "format", "--check", "db")
    workspace.run("mypy", "--package", "db.tables")


# From a phidata or agno workspace

OLD_BASE = '''
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The base of all classes."""

    metadata = MetaData(schema="public")
'''
OLD_USER = '''
from datetime import datetime
from typing import Optional

from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.expression import text
from sqlalchemy.types import BigInteger, Boolean, DateTime, String

from db.tables.base import Base


class UsersTable(Base):
    """Users."""

    __tablename__ = "users"

    id_user: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    email: Mapped[str] = mapped_column(String, unique=True, index=True)
    is_active: Mapped[bool] = mapped_column(Boolean, default=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("now()"))
    updated_at: Mapped[Optional[datetime]] = mapped_column(DateTime(timezone=True))
'''
OLD_NOTE = '''
from sqlalchemy import Enum, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import BigInteger, String

from db.tables.base import Base


class NotesTable(Base):
    """Notes."""

    __tablename__ = "notes"

    id_note: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    id_user: Mapped[int] = mapped_column(ForeignKey("public.users.id_user"))
    text: Mapped[str] = mapped_column(String)
    kind: Mapped[str] = mapped_column(KIND, server_default="plain")
'''
OLD_ENV = """
import os

from alembic import context
from sqlalchemy import create_engine

from db.tables.base import Base
from db.tables import note, user

engine = create_engine("postgresql+psycopg://")
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
"""
OLD_REVISION = '''"""{message}"""
from alembic import op
import sqlalchemy as sa

revision = "{revision}"
down_revision = {down!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    # ### commands auto generated by Alembic - please adjust! ###
{up}
    # ### end Alembic commands ###


def downgrade() -> None:
    # ### commands auto generated by Alembic - please adjust! ###
{back}
    # ### end Alembic commands ###
'''
OLD_USERS_UP = """\
    op.create_table('users',
    sa.Column('id_user', sa.BigInteger(), autoincrement=True, nullable=False),
    sa.Column('email', sa.String(), nullable=False),
    sa.Column('is_active', sa.Boolean(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id_user'),
    schema='public'
    )
    op.create_index(op.f('ix_public_users_email'), 'users', ['email'], unique=True, schema='public')"""
OLD_USERS_BACK = """\
    op.drop_index(op.f('ix_public_users_email'), table_name='users', schema='public')
    op.drop_table('users', schema='public')"""
OLD_NOTES_UP = """\
    op.create_table('notes',
    sa.Column('id_note', sa.BigInteger(), autoincrement=True, nullable=False),
    sa.Column('id_user', sa.BigInteger(), nullable=False),
    sa.Column('text', sa.String(), nullable=False),
    sa.Column('kind', KIND, server_default='plain', nullable=False),
    sa.ForeignKeyConstraint(['id_user'], ['public.users.id_user'], ),
    sa.PrimaryKeyConstraint('id_note'),
    schema='public'
    )"""
OLD_NOTES_BACK = "    op.drop_table('notes', schema='public')"
# How the column `kind` is declared, and how autogenerate wrote it.
KINDS = {
    "text": ("String", "sa.String()"),
    "enum": (
        'Enum("plain", "secret", name="note_kind")',
        "sa.Enum('plain', 'secret', name='note_kind', schema='public')",
    ),
}
# What `outline` calls the framework's.
FRAMEWORKS = re.compile(r"^ai;|Schema: ai$")
AI = """
CREATE SCHEMA ai;
CREATE TABLE ai.sessions (session_id text PRIMARY KEY, memory jsonb, updated_at bigint);
CREATE TABLE ai.documents (id text PRIMARY KEY, content text);
CREATE INDEX documents_content ON ai.documents USING gin (to_tsvector('simple', content));
INSERT INTO ai.sessions VALUES ('s1', '{"a": 1}', 5);
INSERT INTO users (email, is_active) SELECT n || '@example.com', true FROM generate_series(1, 100) n;
INSERT INTO notes (id_user, text) SELECT id_user, 'note' FROM users;
"""


def old_workspace(folder: Path, python: Path, database: Database, kind: str) -> Path:
    """Write a workspace of the older layout, and migrate a database with its own Alembic."""
    declared, written = KINDS[kind]
    revisions = {
        "1a2b3c4d5e6f_initialize_db.py": ("Initialize DB", None, OLD_USERS_UP, OLD_USERS_BACK),
        "6f5e4d3c2b1a_notes.py": ("Notes", "1a2b3c4d5e6f", OLD_NOTES_UP, OLD_NOTES_BACK),
    }
    files = {
        "db/__init__.py": "",
        "db/alembic.ini": "[alembic]\nscript_location = db/migrations\nprepend_sys_path = .\n",
        "db/tables/__init__.py": "from db.tables.base import Base\n",
        "db/tables/base.py": OLD_BASE,
        "db/tables/user.py": OLD_USER,
        "db/tables/note.py": OLD_NOTE.replace("KIND", declared),
        "db/migrations/env.py": OLD_ENV,
    }
    for name, (message, down, up, back) in revisions.items():
        files[f"db/migrations/versions/{name}"] = OLD_REVISION.format(
            message=message,
            revision=name[:12],
            down=down,
            up=up.replace("KIND", written),
            back=back,
        )
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    run(
        python, "-m", "alembic", "-c", "db/alembic.ini", "upgrade", "head", cwd=folder, env=libpq_of(database)
    )
    return folder


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_from_an_older_workspace(
    workspace: Workspace, database: Database, debian: Server, env: dict[str, str], tmp_path: Path, kind: str
) -> None:
    python = workspace.path / ".venv/bin/python"
    old = old_workspace(tmp_path / "old", python, database, kind)
    database.execute(AI)
    kept = rows(database)
    ai = rows(database, "ai"), {name: of for name, of in outline(database).items() if FRAMEWORKS.search(name)}
    assert len(ai[0]) == 2
    assert len(ai[1]) >= 4
    workspace.run("git", "init", "-q")
    workspace.run("git", "add", "-A")
    workspace.run("git", "commit", "-q", "-m", "As it was baked")
    versions = workspace.path / "db/migrations/versions"

    settings = {**env, "DB_DATABASE": database.name}

    def names_that_differ() -> None:
        told = workspace.alembic("check", env=settings, check=False).output
        block = block_with(workspace, OLDER, "names_by_the_convention")
        renamed = re.findall(r'"\w+", "(\w+)", "(\w+)"|ALTER INDEX (ix_\w+) RENAME TO (\w+)', block)
        assert len(renamed) == 5
        for name in {name for names in renamed for name in names if name}:
            assert name in told

    def a_type_that_is_left() -> None:
        if kind == "enum":
            workspace.alembic("upgrade", "head", env=settings)
            left = workspace.run("python", "-m", "chassis", "verify", check=False)
            assert left.code == 1
            assert "The downgrade to base left behind: type public.note_kind." in left.output
            notes = versions / "6f5e4d3c2b1a_notes.py"
            text = notes.read_text(encoding="utf-8")
            drop = f'{OLD_NOTES_BACK}\n    op.execute("DROP TYPE note_kind")'
            notes.write_text(text.replace(OLD_NOTES_BACK, drop), encoding="utf-8")

    printed = run_section(
        workspace,
        OLDER,
        {**settings, "OLD": str(old)},
        {'-m "Names by': names_that_differ, "chassis verify": a_type_that_is_left},
    )
    assert "No new upgrade operations detected." in printed
    assert "ok  upgrade head again" in printed
    assert "(mergepoint)" in printed
    assert len(workspace.alembic("heads").output.splitlines()) == 1

    # History, rows and what is the framework's stay.
    for revision in (old / "db/migrations/versions").glob("*.py"):
        edited = kind == "enum" and revision.name.endswith("_notes.py")
        assert ((versions / revision.name).read_bytes() == revision.read_bytes()) is not edited
    now = rows(database)
    assert {table: now[table] for table in kept if table != "alembic_version"} == {
        table: found for table, found in kept.items() if table != "alembic_version"
    }
    now_outline = outline(database)
    assert ai == (
        rows(database, "ai"),
        {name: of for name, of in now_outline.items() if FRAMEWORKS.search(name)},
    )
    code = Code(workspace.path, python, None)
    assert ready(code, database).strip() == "('', '')"
    workspace.run("python", "-m", "chassis", "lint")

    # A database from nothing is the same but for the framework's.
    fresh = debian.new_database()
    for command in (("upgrade", "head"), ("check",), ("downgrade", "base"), ("upgrade", "head")):
        workspace.alembic(*command, env={**env, "DB_DATABASE": fresh.name})
    assert {name: of for name, of in now_outline.items() if not FRAMEWORKS.search(name)} == outline(fresh)

    # The next change is that change and no other, and a class that goes is missed.
    user, note = (workspace.path / f"db/tables/{name}.py" for name in ("user", "note"))
    text = user.read_text(encoding="utf-8")
    user.write_text(f"{text}    nickname: Mapped[Optional[str]] = mapped_column(String)\n", encoding="utf-8")
    workspace.alembic("revision", "--autogenerate", "-m", "Nicknames", env=settings)
    (revision,) = versions.glob("*_nicknames.py")
    operations = re.findall(r"^    op\.\w+\(.*$", revision.read_text(encoding="utf-8"), re.MULTILINE)
    assert operations == [
        '    op.add_column("users", sa.Column("nickname", sa.String(), nullable=True))',
        '    op.drop_column("users", "nickname")',
    ]
    workspace.alembic("upgrade", "head", env=settings)
    note.unlink()
    gone = workspace.alembic("check", env=settings, check=False).output
    assert "table notes: the database has it, the classes nothing" in gone
    assert "ai." not in gone
