# mypy: allow-untyped-calls, allow-untyped-defs
"""The table of changes: what classes declare before and after, with rows in between.

Most are of one table `things` with a key and some columns. `before` and `after` are what stands beside the key;
`rows` are inserted in between, and `kept` is what a query of all columns but the key shows after the upgrade.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

Declare = Callable[[sa.MetaData], None]


@dataclass(frozen=True)
class Case:
    """A change; `refused` is a part of the sentence that autogenerate must end with instead of a file."""

    name: str
    before: Declare
    after: Declare
    rows: tuple[str, ...] = ()
    query: str = ""
    kept: tuple[Any, ...] | None = None
    refused: str = ""
    # A part of what the upgrade says on these rows, of which autogenerate has warned.
    fails: str = ""
    # Whether PostgreSQL takes both for the same, so that there is nothing to write.
    same: bool = False
    # Whether the way back on these rows can't be taken.
    one_way: bool = False


def things(*items: Any, name: str = "things", schema: str | None = None, **options: Any) -> Declare:
    """A table with a key `id` and these items; copies, since an item belongs to one table."""

    def declare(metadata: sa.MetaData) -> None:
        parts = [
            item() if callable(item) and not isinstance(item, sa.schema.SchemaItem) else item._copy()
            for item in items
        ]
        sa.Table(
            name,
            metadata,
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            *parts,
            schema=schema,
            **options,
        )

    return declare


def nothing(metadata: sa.MetaData) -> None:
    """No table at all."""


def both(*declares: Declare) -> Declare:
    def declare(metadata: sa.MetaData) -> None:
        for one in declares:
            one(metadata)

    return declare


CASES: list[Case] = []


def case(name: str, before: Any, after: Any, *rows: str, **options: Any) -> None:
    """Add a case; a list stands for a table of these items."""
    sides = [things(*side) if isinstance(side, list) else side for side in (before, after)]
    inserts = tuple(
        row if " " in row and row.split()[0].isupper() else f"INSERT INTO things VALUES {row}" for row in rows
    )
    CASES.append(Case(name, sides[0], sides[1], inserts, **options))


def col(kind: Any, default: Any = None, name: str = "x", **options: Any) -> Any:
    options.setdefault("nullable", True)
    return sa.Column(name, kind, server_default=default, **options)


T, N = sa.text, None

# Types that PostgreSQL casts by itself, or by a USING that is certain.
for number, (old, new, value, kept) in enumerate(
    [
        (sa.String(), sa.String(120), "'a'", "a"),
        (sa.String(120), sa.String(), "'a'", "a"),
        (sa.String(120), sa.String(200), "'a'", "a"),
        (sa.String(200), sa.String(120), "'a'", "a"),
        (sa.String(120), sa.Text(), "'a'", "a"),
        (sa.Text(), sa.String(120), "'a'", "a"),
        (sa.CHAR(4), sa.Text(), "'a'", "a"),
        (sa.Numeric(), sa.Numeric(10, 2), "1.005", "1.01"),
        (sa.Numeric(10, 2), sa.Numeric(), "1.50", "1.50"),
        (sa.Numeric(10, 2), sa.Numeric(12, 4), "1.50", "1.5000"),
        (sa.Integer(), sa.BigInteger(), "1", "1"),
        (sa.BigInteger(), sa.Integer(), "1", "1"),
        (sa.SmallInteger(), sa.Integer(), "1", "1"),
        (sa.Integer(), sa.Numeric(10, 2), "1", "1.00"),
        (sa.Integer(), sa.Text(), "1", "1"),
        (sa.Text(), sa.Integer(), "'12'", "12"),
        (sa.Boolean(), sa.Integer(), "true", "1"),
        (sa.Integer(), sa.Boolean(), "1", "true"),
        (sa.Text(), sa.Boolean(), "'yes'", "true"),
        (
            sa.Text(),
            sa.Uuid(),
            "'a0000000-0000-0000-0000-000000000001'",
            "a0000000-0000-0000-0000-000000000001",
        ),
        (
            sa.Uuid(),
            sa.Text(),
            "'a0000000-0000-0000-0000-000000000001'",
            "a0000000-0000-0000-0000-000000000001",
        ),
        (sa.Text(), pg.JSONB(), "'{}'", "{}"),
        (pg.JSONB(), sa.Text(), "'{}'", "{}"),
        (sa.JSON(), pg.JSONB(), "'{\"a\":1}'", '{"a": 1}'),
        (pg.JSONB(), sa.JSON(), "'{\"a\": 1}'", '{"a": 1}'),
        (sa.Text(), sa.DateTime(timezone=True), "'2026-01-01 00:00+00'", None),
        (sa.DateTime(), sa.DateTime(timezone=True), "'2026-01-01'", None),
        (sa.DateTime(timezone=True), sa.DateTime(), "'2026-01-01'", None),
        (sa.Date(), sa.DateTime(), "'2026-01-01'", "2026-01-01 00:00:00"),
        (sa.DateTime(), sa.Date(), "'2026-01-01 10:00'", "2026-01-01"),
        (pg.TIMESTAMP(precision=0), pg.TIMESTAMP(precision=3), "'2026-01-01'", "2026-01-01 00:00:00"),
        (pg.TIMESTAMP(), pg.TIMESTAMP(precision=0), "'2026-01-01 00:00:00.9'", "2026-01-01 00:00:01"),
        (pg.TIME(precision=0), pg.TIME(precision=6), "'10:00'", "10:00:00"),
        (pg.INTERVAL(), pg.INTERVAL(precision=0), "'1 day'", "1 day"),
        (pg.INTERVAL(), pg.INTERVAL(fields="DAY TO SECOND"), "'1 day'", "1 day"),
        (sa.Text(), sa.Text(collation="C"), "'a'", "a"),
        (sa.Text(collation="C"), sa.Text(), "'a'", "a"),
        (sa.String(9), sa.String(9, collation="C"), "'a'", "a"),
        (pg.ARRAY(sa.String()), pg.ARRAY(sa.String(10)), "'{a}'", "{a}"),
        (pg.ARRAY(sa.String(10)), pg.ARRAY(sa.String()), "'{a}'", "{a}"),
        (pg.ARRAY(sa.Integer()), pg.ARRAY(sa.BigInteger()), "'{1}'", "{1}"),
        (pg.ARRAY(sa.Text()), pg.ARRAY(sa.Integer()), "'{1}'", "{1}"),
        (sa.Text(), pg.ARRAY(sa.Text()), "'a b'", '{"a b"}'),
        (sa.Integer(), pg.ARRAY(sa.Integer()), "1", "{1}"),
        (sa.LargeBinary(), sa.Text(), "'a'", "\\x61"),
        (pg.INET(), sa.Text(), "'10.0.0.1'", "10.0.0.1/32"),
        (sa.Text(), pg.INET(), "'10.0.0.1'", "10.0.0.1/32"),
        (sa.Float(), sa.Numeric(), "1.5", "1.5"),
        (sa.REAL(), sa.Double(), "1.5", "1.5"),
        (pg.BIT(3), pg.BIT(3, varying=True), "B'101'", "101"),
        (sa.Text(), pg.TSVECTOR(), "'a b'", "'a' 'b'"),
    ]
):
    case(f"type {number} {old!r} -> {new!r}", [col(old)], [col(new)], f"(1, {value})", "(2, NULL)",
         query="SELECT x::text FROM things ORDER BY id", kept=None if kept is None else ((kept,), (None,)))  # fmt: skip

# PostgreSQL doesn't enforce the number of dimensions, and a restored dump has lost it.
case(
    "array with another number of dimensions",
    [col(pg.ARRAY(sa.Integer()))],
    [col(pg.ARRAY(sa.Integer(), dimensions=2))],
    same=True,
)

# Types for which only a person can say how.
for old, new in [
    (sa.Integer(), sa.Uuid()), (sa.Boolean(), sa.Date()), (sa.Uuid(), sa.Integer()), (pg.JSONB(), sa.Uuid()),
    (pg.ARRAY(sa.Text()), sa.Text()), (sa.Date(), sa.Integer()), (pg.INET(), sa.Integer()), (sa.Numeric(), sa.Boolean()),
]:  # fmt: skip
    case(f"no cast {old!r} -> {new!r}", [col(old)], [col(new)], "(1, NULL)", refused="postgresql_using")

# Defaults, of which no two may crash a comparison.
DEFAULTS: list[tuple[Any, Any]] = [
    (sa.Text(), "it's"), (sa.Text(), "50%"), (sa.Text(), "a:b"), (sa.Text(), ""), (sa.Text(), T("'x' || 'y'")),
    (sa.Text(), T("substr(md5(random()::text), 1, 8)")), (sa.Text(), T("gen_random_uuid()::text")),
    (sa.Text(), T("CURRENT_USER")), (sa.Text(), T("NULL")), (sa.Text(), T("'50%'")), (sa.Text(), T(r"'\:c'")),
    (sa.JSON(), "{}"), (sa.JSON(), T("'[]'")), (pg.JSONB(), T("'{}'::jsonb")), (sa.Integer(), "1"), (sa.Integer(), T("1 + 1")),
    (sa.Boolean(), sa.true()), (sa.Boolean(), T("false")), (sa.Numeric(10, 2), "1.5"), (sa.Uuid(), T("gen_random_uuid()")),
    (sa.DateTime(timezone=True), sa.func.now()), (sa.Time(), T("'12:00:00'::time")), (sa.Date(), T("CURRENT_DATE")),
    (pg.ARRAY(sa.Text()), T("'{}'::text[]")), (sa.Interval(), T("'1 day'::interval")), (sa.LargeBinary(), T(r"'\\x00'::bytea")),
]  # fmt: skip
for number, (kind, default) in enumerate(DEFAULTS):
    same = str(default) == "NULL"
    case(f"default {number} of {kind!r} comes", [col(kind)], [col(kind, default)], "(1, NULL)", same=same)
    case(f"default {number} of {kind!r} goes", [col(kind, default)], [col(kind)], "(1)", same=same)
    case(
        f"column with default {number} comes",
        [],
        [col(kind, default, nullable=False)] if "NULL" not in str(default) else [col(kind, default)],
        "(1)",
    )
for number, (old, new) in enumerate(
    [
        ("a", "b"),
        ("it's", "its"),
        (T("now()::text"), T("clock_timestamp()::text")),
        ("%", "%%"),
        (T(r"'a\:b'"), "a:c"),
    ]
):
    case(f"default changes {number}", [col(sa.Text(), old)], [col(sa.Text(), new)], "(1)")
# A name with its schema means the type that the classes make, as what a tool reads from a database has it.
case(
    "enum type with its schema",
    [],
    things(
        col(sa.Enum("new", "old", name="state", schema="other"), T("'new'::other.state")),
        col(pg.ARRAY(sa.Enum("new", "old", name="state", schema="other")), T("'{}'::other.state[]"), "y"),
        sa.CheckConstraint("x <> 'old'::other.state OR y IS NULL", name="state"),
        lambda: sa.Index("ix_things_x", "x", postgresql_where=T("x <> ALL (ARRAY['old'::other.state])")),
        schema="other",
    ),
)
case("default in other words", [col(sa.Text(), "1")], [col(sa.Text(), T("'1'::text"))], "(1)", same=True)
case(
    "default that PostgreSQL refuses",
    [col(sa.Integer())],
    [col(sa.Integer(), "abc")],
    refused="PostgreSQL refuses the tables of the classes",
)

# A type that changes together with its default.
for old, old_default, new, new_default in [
    (sa.Text(), "1", sa.Integer(), "1"), (sa.Text(), "yes", sa.Boolean(), sa.true()), (sa.Text(), "{}", pg.JSONB(), T("'{}'")),
    (sa.JSON(), "{}", pg.JSONB(), "{}"), (sa.Text(), "2026-01-01", sa.DateTime(), sa.func.now()), (sa.Integer(), "1", sa.Text(), "one"),
    (sa.Text(), "a0000000-0000-0000-0000-000000000001", sa.Uuid(), T("gen_random_uuid()")), (sa.Text(), "1", sa.Integer(), N),
    (sa.Text(), N, sa.Integer(), "1"), (sa.Text(), "a", pg.ARRAY(sa.Text()), T("'{}'")), (sa.Boolean(), sa.true(), sa.Integer(), "1"),
]:  # fmt: skip
    case(f"type with default {old!r} -> {new!r}", [col(old, old_default)], [col(new, new_default)], "(1)")

# NULL and comments.
case("becomes required, no NULL there", [col(sa.Text())], [col(sa.Text(), nullable=False)], "(1, 'a')")
case(
    "becomes required, a NULL there",
    [col(sa.Text())],
    [col(sa.Text(), nullable=False)],
    "(1)",
    fails="contains null values",
)
case("becomes optional", [col(sa.Text(), nullable=False)], [col(sa.Text())], "(1, 'a')")
case("required column on rows", [], [col(sa.Text(), nullable=False)], "(1)", fails="contains null values")
case("required column on an empty table", [], [col(sa.Text(), nullable=False)])
case("required column goes", [col(sa.Text(), nullable=False)], [], "(1, 'a')", one_way=True)
case("optional column goes", [col(sa.Text())], [], "(1, 'a')")
case("comment comes", [col(sa.Text())], [col(sa.Text(), comment="50% of 'it': :x")], "(1)")
case("comment goes", [col(sa.Text(), comment="a")], [col(sa.Text())], "(1)")
case("comment of the table", things(), things(comment="it's :a 5%"))
case(
    "type, default, NULL and comment at once",
    [col(sa.Text(), "1")],
    [col(sa.Integer(), "2", nullable=False, comment="c")],
    "(1)",
)

# Constraints and indexes. Each with all that a text may hold.
TEXTS = [
    "body <> '50%'",
    "char_length(body) % 2 = 0",
    r"body !~ '\:c'",
    "body <> 'it''s'",
    "body <> '::x'",
    "body LIKE '%a%' OR true",
]
BODY = col(sa.Text(), name="body")
for number, condition in enumerate(TEXTS):
    other = sa.CheckConstraint("body <> 'z'", name="body")
    check = sa.CheckConstraint(condition, name="body")
    case(f"check {number} with its table", nothing, [BODY, check], query="SELECT 1", kept=((1,),))
    case(f"check {number} comes", [BODY], [BODY, check], "(1, 'ab')")
    case(f"check {number} changes", [BODY, other], [BODY, check], "(1, 'ab')")
    case(f"check {number} goes", [BODY, check], [BODY], "(1, 'ab')")
    partial, whole = (
        (lambda c=condition: sa.Index("ix_things_body", "body", postgresql_where=T(c))),
        (lambda: sa.Index("ix_things_body", "body")),
    )
    case(f"condition {number} of an index comes", [BODY, whole], [BODY, partial], "(1, 'ab')")
    case(f"condition {number} of an index goes", [BODY, partial], [BODY, whole], "(1, 'ab')")
    expression = lambda c=condition: sa.Index("ix_things_e", T(f"({c})"))
    case(f"expression {number} of an index", [BODY], [BODY, expression], "(1, 'ab')")
    computed = sa.Column("y", sa.Boolean, sa.Computed(condition, persisted=True))
    case(f"computed {number} comes", [BODY], [BODY, computed], "(1, 'ab')")
    case(f"computed {number} with its table", nothing, [BODY, computed], query="SELECT 1", kept=((1,),))
case(
    "check on rows that break it",
    [BODY],
    [BODY, sa.CheckConstraint("body <> 'a'", name="body")],
    "(1, 'a')",
    fails="is violated by some row",
)
Y = sa.Column("y", sa.Integer)
X = sa.Column("x", sa.Integer)


def ix(*what: Any, name: str = "ix_things_x", **options: Any) -> Callable[[], sa.Index]:
    return lambda: sa.Index(name, *what, **options)


for old, new in [
    (ix("x"), ix("x", postgresql_using="hash")), (ix("x"), ix("x", postgresql_include=["y"])), (ix("x"), ix("x", unique=True)),
    (ix("x"), ix("y")), (ix("x"), ix("x", "y")), (ix("x"), ix(T("x DESC"))), (ix("x"), ix(T("x DESC NULLS LAST"))),
    (ix("x"), ix("x", postgresql_where=T("x > 5"))), (ix("x", postgresql_where=T("x > 5")), ix("x", postgresql_where=T("x > 6"))),
    (ix("x", unique=True), ix("x", unique=True, postgresql_nulls_not_distinct=True)), (ix("x"), ix("x", postgresql_with={"fillfactor": 50})),
    (ix("x"), ix(T("(x + 1)"))), (ix(T("(x + 1)")), ix(T("(x + 2)"))), (ix("x"), ix("x", name="ix_other")),
]:  # fmt: skip
    case(f"index {len(CASES)}", [X, Y, old], [X, Y, new], "(1, 1, 2)")
case(
    "index with an operator class",
    [BODY],
    [BODY, ix("body", postgresql_ops={"body": "text_pattern_ops"})],
    "(1, 'a')",
)
case("index by GIN", [col(pg.JSONB())], [col(pg.JSONB()), ix("x", postgresql_using="gin")], "(1, '{}')")
case(
    "index of full text",
    [BODY],
    [BODY, ix(T("to_tsvector('english'::regconfig, body)"), postgresql_using="gin")],
    "(1, 'a')",
)


def uq(*names: str, **options: Any) -> Callable[[], sa.UniqueConstraint]:
    return lambda: sa.UniqueConstraint(*names, **options)


def exclude(expression: str) -> Callable[[], pg.ExcludeConstraint]:
    return lambda: pg.ExcludeConstraint((T(expression), "&&"), name="ex_things_x")


case("unique comes", [X], [X, uq("x")], "(1, 1)")
case("unique over duplicates", [X], [X, uq("x")], "(1, 1)", "(2, 1)", fails="could not create unique index")
case("unique goes", [X, uq("x")], [X], "(1, 1)")
case(
    "unique over other columns", [X, Y, uq("x", name="uq_x")], [X, Y, uq("x", "y", name="uq_x")], "(1, 1, 2)"
)
case("unique, NULLs not distinct", [X, uq("x")], [X, uq("x", postgresql_nulls_not_distinct=True)], "(1, 1)")
case("unique becomes deferrable", [X, uq("x")], [X, uq("x", deferrable=True, initially="DEFERRED")], "(1, 1)")
one, two = exclude("int4range(x, x + 1)"), exclude("int4range(x, x + 2)")
case("exclude comes", [X], [X, one], "(1, 1)")
case("exclude goes", [X, one], [X], "(1, 1)")
case("exclude changes", [X, one], [X, two], "(1, 1)")
case("exclude with its table", nothing, [X, one])


def keyed(*columns: str) -> Declare:
    def declare(metadata: sa.MetaData) -> None:
        kinds = [sa.Column(name, sa.Integer, nullable=False) for name in ("id", "x")]
        sa.Table("things", metadata, *kinds, sa.PrimaryKeyConstraint(*columns))

    return declare


case("primary key over another column", keyed("id"), keyed("x"), "(1, 2)")
case("primary key over one more column", keyed("id"), keyed("id", "x"), "(1, 2)")

# Generated columns and identities.
gen = lambda expression: sa.Column("y", sa.Integer, sa.Computed(expression, persisted=True))
case(
    "expression of a generated column",
    [X, gen("x * 2")],
    [X, gen("x * 3")],
    "(1, 2)",
    query="SELECT y FROM things",
    kept=((6,),),
)
case(
    "generated column becomes plain",
    [X, gen("x * 2")],
    [X, Y],
    "(1, 2)",
    query="SELECT y FROM things",
    kept=((4,),),
)
case(
    "plain column becomes generated",
    [X, Y],
    [X, gen("x * 2")],
    "(1, 2, 9)",
    query="SELECT y FROM things",
    kept=((4,),),
)
case("generated column with an index", [X, gen("x * 2"), ix("y")], [X, gen("x * 3"), ix("y")], "(1, 2)")


def counted(*more: Any, kind: Any = sa.Integer, auto: Any = False) -> Declare:
    def declare(metadata: sa.MetaData) -> None:
        sa.Table(
            "things",
            metadata,
            sa.Column("id", kind, *more, primary_key=True, autoincrement=auto),
            sa.Column("x", sa.Text),
        )

    return declare


ROWS = "INSERT INTO things (id, x) OVERRIDING SYSTEM VALUE VALUES (41, 'a')"
ADDS = "WITH new AS (INSERT INTO things (x) VALUES ('b') RETURNING id) SELECT id FROM new"
identity = lambda **options: counted(sa.Identity(**options), auto=True)
serial = counted(auto=True)
for name, old, new, adds in [
    ("ALWAYS to BY DEFAULT", identity(always=True), identity(), False), ("BY DEFAULT to ALWAYS", identity(), identity(always=True), False),
    ("identity comes", counted(), identity(), True), ("identity goes", identity(), counted(), False),
    ("serial to identity", serial, identity(always=True), True), ("identity to serial", identity(), serial, True),
    ("serial comes", counted(), serial, True), ("serial goes", serial, counted(), False),
    ("increment of an identity", identity(), identity(increment=5), False), ("start of an identity", identity(), identity(start=100), False),
    ("identity that cycles", identity(), identity(cycle=True, maxvalue=90), False),
]:  # fmt: skip
    case(
        name,
        old,
        new,
        ROWS,
        query=ADDS if adds else "SELECT id FROM things",
        kept=((42,),) if adds else ((41,),),
    )
case("serial becomes big", serial, counted(kind=sa.BigInteger, auto=True), ROWS,
     query="SELECT max_value FROM pg_sequences WHERE sequencename = 'things_id_seq'", kept=((2**63 - 1,),))  # fmt: skip
case("identity becomes big", identity(), counted(sa.Identity(), kind=sa.BigInteger, auto=True), ROWS)


# Enums.
def mood(*labels: str, **options: Any) -> sa.Enum:
    return sa.Enum(*labels, name="mood", **options)


class Decorated(sa.TypeDecorator[str]):
    """A type of one's own around an enum."""

    impl = sa.Enum("a", "b", name="mood")
    cache_ok = True


class DecoratedMore(Decorated):
    impl = sa.Enum("a", "b", "c", name="mood")


class Upper(sa.TypeDecorator[str]):
    """A type of one's own around a text."""

    impl = sa.String(20)
    cache_ok = True


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


for old, new in [
    (("a", "b"), ("a", "b", "c")),
    (("a", "b"), ("z", "a", "b")),
    (("a", "b"), ("a", "m", "b")),
    (("a", "b"), ("b", "a")),
    (("a", "b", "c"), ("a", "b")),
]:
    case(
        f"labels {old} -> {new}",
        [col(mood(*old))],
        [col(mood(*new))],
        "(1, 'a')",
        query="SELECT x::text FROM things",
        kept=(("a",),),
    )
    case(
        f"labels {old} -> {new}, in an array",
        [col(pg.ARRAY(mood(*old)))],
        [col(pg.ARRAY(mood(*new)))],
        "(1, '{a}')",
    )
    case(f"labels {old} -> {new}, with a default", [col(mood(*old), "a")], [col(mood(*new), "a")], "(1)")
    case(f"labels {old} -> {new}, with a partial index",
         [col(mood(*old)), ix("x", postgresql_where=T("x = 'a'"))], [col(mood(*new)), ix("x", postgresql_where=T("x = 'a'"))], "(1, 'a')")  # fmt: skip
case(
    "a label that rows have goes",
    [col(mood("a", "b"))],
    [col(mood("a"))],
    "(1, 'b')",
    fails="invalid input value for enum",
)
case("a new label is the new default", [col(mood("a", "b"), "a")], [col(mood("a", "b", "c"), "c")], "(1)")
case(
    "a new label in a check",
    [col(mood("a"))],
    [col(mood("a", "b")), sa.CheckConstraint("x <> 'b'", name="x")],
    "(1, 'a')",
)
case(
    "labels with quotes and colons",
    [col(mood("won't fix"))],
    [col(mood("won't fix", "a :x", 'so "so"', "50%"))],
    "(1, 'won''t fix')",
)
case("labels with quotes, new", nothing, [col(mood("won't fix", "a :x", "50%"))])
case("enum comes", [], [col(mood("a"))], "(1)")
case("enum goes", [col(mood("a"))], [], "(1, 'a')")
case("enum with its table goes", things(col(mood("a"))), nothing)
case(
    "text -> enum",
    [col(sa.Text())],
    [col(mood("a"))],
    "(1, 'a')",
    query="SELECT x::text FROM things",
    kept=(("a",),),
)
case("text -> enum with a default", [col(sa.Text(), "a")], [col(mood("a", "b"), "a")], "(1)")
case("enum -> text with a default", [col(mood("a", "b"), "a")], [col(sa.Text(), "a")], "(1)")
case(
    "enum -> another enum with a default",
    [col(mood("a"), "a")],
    [col(sa.Enum("a", "b", name="state"), "a")],
    "(1)",
)
case("not native -> native", [col(mood("a", native_enum=False), "a")], [col(mood("a"), "a")], "(1)")
case("native -> not native", [col(mood("a"))], [col(mood("a", native_enum=False))], "(1, 'a')")
STORED_AS_TEXT = {"native_enum": False, "create_constraint": True}
case(
    "labels of one that isn't native",
    [lambda: col(mood("a", "b", **STORED_AS_TEXT))],
    [lambda: col(mood("a", "b", "c", **STORED_AS_TEXT))],
    "(1, 'a')",
)
case("enum in a decorator", [col(Decorated())], [col(DecoratedMore())], "(1, 'a')")
case("enum in a decorator comes", [], [col(Decorated())], "(1)")
case("enum in a decorator goes", [col(Decorated())], [], "(1, 'a')")
case("array of an enum in a decorator", [], [col(pg.ARRAY(Decorated()))], "(1)")
case("create_type=False", [], [col(pg.ENUM("a", name="mood", create_type=False))], refused="mood")
case("enum of a Python class", [], [col(sa.Enum(Colour, name="colour"))], "(1)")
case(
    "variant for PostgreSQL",
    [],
    [col(sa.String().with_variant(pg.ENUM("a", name="mood"), "postgresql"))],
    "(1)",
)
case("decorator of one's own", [], [col(Upper())], "(1)")
case("decorator to plain", [col(Upper())], [col(sa.String(30))], "(1, 'a')")
shared = lambda *labels: both(things(col(mood(*labels))), things(col(mood(*labels)), name="others"))
case("shared enum gets a label", shared("a"), shared("a", "b"), "(1, 'a')")
case("shared enum of which one table goes", shared("a"), things(col(mood("a"))), "(1, 'a')")
case("shared enum of two new tables", nothing, shared("a"))
elsewhere: Any = {"schema": "other"}
case(
    "enum in another schema",
    things(col(mood("a", **elsewhere)), **elsewhere),
    things(col(mood("a", "b", **elsewhere)), **elsewhere),
)
case("table in another schema", nothing, things(col(sa.Text(), "x"), ix("x"), **elsewhere))
case(
    "table in another schema changes",
    things(col(sa.Text(), "x"), **elsewhere),
    things(col(sa.String(9), "y", nullable=False), ix("x"), **elsewhere),
)
case("table in another schema goes", things(col(sa.Text()), **elsewhere), nothing)


# Tables that refer to each other.
def pair(first: Sequence[str] = (), second: Sequence[str] = (), **options: Any) -> Declare:
    """Tables a and b, each with keys to the tables that are named."""

    def declare(metadata: sa.MetaData) -> None:
        for name, targets in (("a", first), ("b", second)):
            columns: list[Any] = [
                sa.Column(f"{t}_id", sa.ForeignKey(f"{t}.id", **options), index=True) for t in targets
            ]
            sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True), *columns)

    return declare


def alone(name: str) -> Declare:
    return lambda metadata: (sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True)), None)[1]


case("circle of two new tables", nothing, pair(["b"], ["a"]))
case("circle with use_alter", nothing, pair(["b"], ["a"], use_alter=True))
case("circle goes", pair(["b"], ["a"]), nothing)
case("table that refers to itself", nothing, pair(["a"], []))
case("parent and child go", pair(["b"], []), nothing)
case(
    "parent goes, child stays",
    pair(["b"], []),
    lambda m: (
        sa.Table(
            "a", m, sa.Column("id", sa.Integer, primary_key=True), sa.Column("b_id", sa.Integer, index=True)
        ),
        None,
    )[1],
)
case(
    "child points to another table",
    both(pair(["b"], []), alone("c")),
    both(
        alone("b"),
        alone("c"),
        lambda m: (
            sa.Table(
                "a",
                m,
                sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("b_id", sa.ForeignKey("c.id"), index=True),
            ),
            None,
        )[1],
    ),
)
case("ON DELETE comes", pair(["b"], []), pair(["b"], [], ondelete="CASCADE"))
case("DEFERRABLE comes", pair(["b"], []), pair(["b"], [], deferrable=True, initially="DEFERRED"))


def referring(unique: bool, child: bool) -> Declare:
    def declare(metadata: sa.MetaData) -> None:
        sa.Table(
            "things",
            metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("code", sa.Text, unique=unique),
        )
        if child:
            sa.Table(
                "aa",
                metadata,
                sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("code", sa.ForeignKey("things.code")),
            )

    return declare


case("unique and a key to it", referring(False, False), referring(True, True), "(1, 'a')")
case("unique and the key to it go", referring(True, True), referring(False, False), "(1, 'a')")
case(
    "primary key that another refers to",
    pair(["b"], []),
    both(
        lambda m: (
            sa.Table(
                "a",
                m,
                sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("b_id", sa.ForeignKey("b.id"), index=True),
            ),
            None,
        )[1],
        lambda m: (sa.Table("b", m, sa.Column("id", sa.BigInteger, primary_key=True)), None)[1],
    ),
)
many = lambda m: (
    [
        sa.Table(
            f"t{n}",
            m,
            sa.Column("id", sa.Integer, primary_key=True),
            *([sa.Column("up", sa.ForeignKey(f"t{n - 1}.id"), index=True)] if n else []),
        )
        for n in range(6)
    ]
    and None
)
case("chain of tables comes", nothing, many)
case("chain of tables goes", many, nothing)
case("partitioned table comes", nothing, things(postgresql_partition_by="RANGE (id)"))
case("partitioned table goes", things(X, ix("x"), postgresql_partition_by="RANGE (id)"), nothing)
case("unlogged table comes", nothing, things(X, prefixes=["UNLOGGED"]))
case("unlogged table goes", things(X, prefixes=["UNLOGGED"]), nothing)
case("table becomes unlogged", things(X), things(X, prefixes=["UNLOGGED"]), "(1, 2)")
case("partitioning comes", things(X), things(X, postgresql_partition_by="RANGE (id)"), refused="partitioned")
case(
    "names that need quotes",
    things(col(sa.Text(), name="Order")),
    things(col(sa.String(9), "it's", name="Order"), ix("Order", name="ix Order")),
    "(1, 'a')",
)
case(
    "many things at once",
    both(things(X, ix("x")), pair(["b"], [])),
    both(things(X, Y, ix("y")), pair([], ["a"])),
    "(1, 2)",
)
