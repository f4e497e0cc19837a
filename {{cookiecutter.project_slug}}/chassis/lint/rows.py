"""Rows for every table, made from the catalogue: what a revision meets in production, as far as can be known.

The server makes them by itself, one statement a table. The value of a column in row number i depends on nothing but
its type and i, so a foreign key refers to row i by saying what the key of row i is: no order of tables is needed.
Nothing checks while they are written (``session_replication_role``); what refers to nothing is removed afterwards.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from chassis.database import plain

ROWS = 100
VARIANTS = 24  # so often a row is tried in another way where a CHECK forbids it

COLUMNS = """
    SELECT a.attrelid::int8, a.attnum::int4, a.attname::text, format_type(a.atttypid, a.atttypmod),
           coalesce(nullif(t.typbasetype, 0), t.oid)::regtype::text, t.typcategory::text,
           CASE WHEN t.typcategory = 'A' THEN format_type(t.typelem, a.atttypmod) END,
           a.attnotnull OR (t.typtype = 'd' AND t.typnotnull), a.atthasdef,
           ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid IN (t.oid, t.typelem) ORDER BY e.enumsortorder),
           ARRAY(SELECT pg_get_constraintdef(d.oid) FROM pg_constraint d WHERE d.contypid = t.oid),
           pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = ANY(:oids) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
     ORDER BY a.attrelid, a.attnum
"""
TABLES = """
    SELECT c.oid::int8, format('%I.%I', n.nspname, c.relname),
           ARRAY(SELECT i.indkey::text FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion)),
           ARRAY(SELECT coalesce(pg_get_expr(k.conbin, k.conrelid), '') FROM pg_constraint k
                  WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.convalidated ORDER BY k.oid),
           coalesce(pg_get_partition_constraintdef(c.oid), '')
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = ANY(:oids) AND c.relkind = 'r'
"""
REFERENCES = """
    SELECT k.conrelid::int8 AS oid, k.conkey::int4[] AS numbers, k.confrelid::int8 AS target_oid,
           k.confkey::int4[] AS key_numbers, k.conrelid::regclass::text AS table_name, k.confrelid::regclass::text AS target_name,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(n, o)
                   JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.o) AS column_names,
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(n, o)
                   JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.o) AS key_names
      FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = ANY(:oids) AND k.conparentid = 0
"""

LITERAL = re.compile(r"'((?:[^']|'')*)'|(?<![\w.'])(-?\d+(?:\.\d+)?)(?![\w'])")
LENGTH = re.compile(r"\((\d+)(?:,(\d+))?\)")
WHOLE = {"smallint": (-32768, 32767), "integer": (-(2**31), 2**31 - 1), "bigint": (-(2**63), 2**63 - 1)}
# Texts such as CHECKs ask for; {i} is the row's number.
TEXTS = ("user{i}@example.com", "https://example.com/{i}", "+4930{i}", "a{i}", "A{i}", "word-{i}", "de", "EUR",
         "{i}", "2026-01-01", "#a1b2c3", "10.0.0.1", "00000{i}", "abc", "ABC", "a", "A")  # fmt: skip
DATES = ("2026-01-01", "2026-06-30", "2027-01-01", "2030-06-30")
# For types without a rule of their own: whatever PostgreSQL takes.
FORMS = ("{i}", "{}", "[]", "(0,0)", "(0,0),(1,1)", "a", "<a/>", "((0,0),(1,1))", "<(0,0),1>", "{1,1,0}", "empty",
    "1:2:", "0/0",
         "08:00:2b:01:02:03", "a=>1", "1", "")  # fmt: skip
ROW = '"#row"'
VARIANT = '"#variant"'


@dataclass
class Column:
    """A column as rows need to know it."""

    table: int
    number: int
    name: str
    type: str
    base: str
    category: str
    element: str | None
    required: bool
    has_default: bool
    labels: Sequence[str]
    domain: Sequence[str]
    sequence: str | None


@dataclass
class Filled:
    """How many rows each table in use has, by its oid, and why one has none."""

    rows: dict[int, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def fill(connection: Connection, oids: Iterable[int], own: str = "") -> Filled:
    """Give rows to each of these tables that has none, and commit.

    Args:
        connection: as a superuser, to a database that nobody needs.
        oids: the tables.
        own: SQL that a team has written, to be run first.

    Raises:
        DBAPIError: where PostgreSQL refuses `own`.
    """
    with connection.begin():
        if own.strip():
            plain.run(connection, own)
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        return Filling(connection, list(oids)).run()


class Filling:
    """Fills the tables in one transaction."""

    def __init__(self, connection: Connection, oids: list[int]) -> None:
        self._connection = connection
        self._tables = connection.execute(text(TABLES), {"oids": oids}).all()
        self._columns: dict[int, dict[int, Column]] = {}
        for row in connection.execute(text(COLUMNS), {"oids": oids}):
            column = Column(*row)
            self._columns.setdefault(column.table, {})[column.number] = column
        self._references = connection.execute(text(REFERENCES), {"oids": oids}).all()
        self._refers: dict[tuple[int, int], tuple[int, int]] = {}
        for reference in self._references:
            for number, key in zip(reference.numbers, reference.key_numbers, strict=True):
                self._refers.setdefault((reference.oid, number), (reference.target_oid, key))

    def run(self) -> Filled:
        """Fill them."""
        filled = Filled()
        for oid, name, *rest in self._tables:
            if self._count(name) == 0:
                try:
                    with self._connection.begin_nested():
                        self._insert(oid, name, *rest)
                except DBAPIError as error:
                    filled.reasons[name] = str(error.orig).strip().splitlines()[0]
        self._remove_dangling()
        for oid, name, *_ in self._tables:
            filled.rows[oid] = self._count(name)
            if not filled.rows[oid]:
                filled.reasons.setdefault(name, "no row was found that its constraints allow")
            self._advance_sequences(oid, name)
        return filled

    def _count(self, name: str) -> int:
        return int(plain.run(self._connection, f"SELECT count(*) FROM {name}").scalar_one())

    def _insert(
        self, oid: int, name: str, unique: Sequence[str], checks: Sequence[str], partition: str
    ) -> None:
        columns = list(self._columns.get(oid, {}).values())
        together = [{int(number) for number in keys.split()} for keys in unique]
        alone = {number for keys in together if len(keys) == 1 for number in keys}
        # What is unique with another column that is unique by itself may be anything.
        alone |= {number for keys in together if not keys & alone for number in keys}
        conditions = [*filter(None, checks), *([partition] if partition else [])]
        literals = [one or two for text_ in conditions for one, two in LITERAL.findall(text_)]
        speaks_of = [{c.name for c in columns if _names(c.name, condition)} for condition in conditions]
        names, values = [], []
        for column in columns:
            value = self._value(column, column.number in alone)
            if value is None:
                continue
            names.append(plain.quote(column.name))
            if (
                any(column.name in spoken for spoken in speaks_of)
                and (oid, column.number) not in self._refers
            ):
                alone_on_it = [c for c, s in zip(conditions, speaks_of, strict=True) if s == {column.name}]
                value = self._varied(column, value, literals, alone_on_it)
            values.append(f"{value} AS {plain.quote(column.name)}")
        holds = " AND ".join(f"(({condition}) IS NOT FALSE)" for condition in conditions) or "true"
        variants = VARIANTS if conditions else 0
        if not names:
            plain.run(self._connection, f"INSERT INTO {name} DEFAULT VALUES")
            return
        # Where an edge value is too much for a condition itself, the first way is left out.
        for first in (0, 1):
            statement = f"""
                INSERT INTO {name} ({", ".join(names)}) OVERRIDING SYSTEM VALUE
                SELECT {", ".join(names)} FROM (
                    SELECT DISTINCT ON ({ROW}) * FROM (
                        SELECT {ROW}, {VARIANT}, {", ".join(values)}
                          FROM generate_series(1, {ROWS}) AS a({ROW}),
                               generate_series({first}, {first + variants}) AS b({VARIANT})
                    ) AS tried WHERE {holds} ORDER BY {ROW}, {VARIANT}
                ) AS found ON CONFLICT DO NOTHING
            """
            try:
                with self._connection.begin_nested():
                    plain.run(self._connection, statement)
                return
            except DBAPIError:
                if first or not conditions:
                    raise

    def _value(self, column: Column, unique: bool) -> str | None:
        """The value of a column, as SQL: NULL in every third row where it may be; None is the column's default."""
        target = self._target(column)
        made = self._own(target or column, unique or target is not None)
        if not made:
            return None if column.required and column.has_default else f"NULL::{column.type}"
        cast = f"({made})::{column.type}"
        nullable = not column.required and (target is not None or not unique)
        return f"CASE WHEN {ROW} % 3 <> 0 THEN {cast} END" if nullable else cast

    def _target(self, column: Column) -> Column | None:
        """The column that this one refers to, at the end of all references."""
        seen = {(column.table, column.number)}
        place = self._refers.get((column.table, column.number))
        while place and place not in seen:
            seen.add(place)
            if place not in self._refers:
                break
            place = self._refers[place]
        return self._columns.get(place[0], {}).get(place[1]) if place else None

    def _own(self, column: Column, unique: bool) -> str:
        """The value of a column that refers to nothing; empty where none is known."""
        if column.domain:
            return self._of_domain(column)
        made = value(column.type, column.base, column.category, column.element, column.labels, unique)
        if made:
            return made
        forms = (form for form in FORMS if self._is_allowed(_numbered(form, "7"), column.type))
        return next((_numbered(form, ROW) for form in forms), "")

    def _of_domain(self, column: Column) -> str:
        """One of the values that the domain allows, each of which is tried."""
        literals = [one or two for text_ in column.domain for one, two in LITERAL.findall(text_)]
        texts = dict.fromkeys([*TEXTS, *literals, "1", "0.5"])
        allowed = [text_ for text_ in texts if self._is_allowed(_numbered(text_, "7"), column.type)]
        # Those with a number in them are different in each row.
        for text_ in allowed:
            if "{i}" in text_:
                return _numbered(text_, ROW)
        usual = value(column.base, column.base, "", None, column.labels, unique=True)
        if usual and self._is_allowed(usual.replace(ROW, "7"), column.type):
            return usual
        return (
            f"(ARRAY[{', '.join(map(plain.literal, allowed))}])[1 + {ROW} % {len(allowed)}]"
            if allowed
            else ""
        )

    def _is_allowed(self, sql: str, type_: str, conditions: Sequence[str] = (), column: str = "x") -> bool:
        """Whether PostgreSQL takes this for a value of the type, one that keeps these conditions on the column."""
        holds = " AND ".join(f"(({condition}) IS NOT FALSE)" for condition in conditions) or "true"
        statement = f"SELECT {holds}, {plain.quote(column)} FROM (SELECT ({sql})::{type_} AS {plain.quote(column)}) AS tried"
        try:
            with self._connection.begin_nested():
                return bool(plain.run(self._connection, statement).one()[0])
        except DBAPIError:
            return False

    def _varied(self, column: Column, first: str, literals: Sequence[str], conditions: Sequence[str]) -> str:
        """The value as it is, and in further tries one of those that the conditions speak of."""
        texts = [
            *literals,
            *(TEXTS if column.category == "S" else ()),
            *(DATES if column.category == "D" else ()),
        ]
        if column.category == "N":
            numbers = [text_ for text_ in literals if re.fullmatch(r"-?\d+(\.\d+)?", text_)]
            texts = [str(changed) for text_ in numbers for changed in _around(text_)] + ["1", "7", "100"]
        ways = [_numbered(text_, ROW) for text_ in dict.fromkeys(texts)] + [self._own(column, unique=True)]

        def those_that(hold: Sequence[str]) -> list[str]:
            tried = ((way, way.replace(ROW, "7")) for way in ways if way)
            return [
                way for way, seventh in tried if self._is_allowed(seventh, column.type, hold, column.name)
            ]

        # Conditions on this column alone can be asked beforehand.
        made = [f"({way})::{column.type}" for way in those_that(conditions) or those_that(())]
        if not made:
            return first
        # Different columns take different ways through their candidates.
        which = f"1 + (hashint4({ROW} * 131 + {VARIANT} * 7 + {column.number} * 7919) & 65535) % {len(made)}"
        return f"CASE WHEN {VARIANT} = 0 THEN {first} ELSE (ARRAY[{', '.join(made)}])[{which}] END"

    def _remove_dangling(self) -> None:
        """Remove rows that refer to nothing, until none is left."""
        for _ in range(len(self._references) + 1):
            removed = 0
            for reference in self._references:
                refers = dangling(reference.column_names, reference.key_names, reference.target_name)
                statement = f"DELETE FROM {reference.table_name} t WHERE {refers}"
                removed += plain.run(self._connection, statement).rowcount
            if not removed:
                return

    def _advance_sequences(self, oid: int, name: str) -> None:
        for column in self._columns.get(oid, {}).values():
            if column.sequence:
                name_of = plain.quote(column.name)
                highest = f"(SELECT max({name_of}) FROM {name} WHERE {name_of} < 30000)"
                statement = f"SELECT setval({plain.literal(column.sequence)}, greatest({ROWS}, {highest}))"
                plain.run(self._connection, statement)


def value(
    type_: str, base: str, category: str, element: str | None, labels: Sequence[str], unique: bool
) -> str:
    """Return SQL for the value of a type in a row; where it needn't be unique, the edges of the type too."""
    row = ROW
    found = LENGTH.search(type_)
    if category == "A" and element:
        inner = value(element, element.split("(")[0], "", None, labels, unique)
        empty = "" if unique else f"CASE WHEN {row} % 5 = 4 THEN ARRAY[]::{element}[] ELSE "
        return f"{empty}ARRAY[({inner})::{element}]{' END' if empty else ''}"
    if labels:
        return f"(ARRAY[{', '.join(map(plain.literal, labels))}])[1 + {row} % {len(labels)}]"
    if base in WHOLE:
        low, high = WHOLE[base]
        return _edges(row, unique, f"({row})::text", ["0", str(high), "-1", str(low)])
    if base == "numeric":
        digits, scale = (int(found[1]), int(found[2] or 0)) if found else (12, 2)
        biggest = "9" * (digits - scale) + ("." + "9" * scale if scale else "")
        usual = f"({row} % {10 ** min(digits - scale, 9)})::text"
        return _edges(row, unique, usual, ["0", biggest or "0", f"-{biggest or 0}"])
    if base in {"real", "double precision", "money"}:
        return _edges(row, unique, f"({row})::text", ["0", "-1.5"])
    if base in {"character varying", "character", "text", "citext", "name"}:
        length = int(found[1]) if found else None
        if unique:
            return f"right('{'row ' if (length or 9) > 8 else ''}' || {row}, {length or 99})"
        longest = f"repeat('x', {length or 2000})"
        word = f"left('word ' || {row}, {length or 99})"
        return (
            f"CASE {row} WHEN 1 THEN '' WHEN 2 THEN {longest} WHEN 4 THEN left('Ä “100%” ''1''', {length or 99}) "
            f"WHEN 5 THEN left('word 7', {length or 99}) ELSE {word} END"
        )
    simple = {
        "boolean": f"({row} % 2 = 0)",
        "uuid": f"('00000000-0000-4000-8000-' || lpad(to_hex({row}), 12, '0'))",
        "date": f"(DATE '2026-01-01' + ({row})::int)",
        "timestamp without time zone": f"(TIMESTAMP '2026-01-01' + ({row}) * INTERVAL '1 hour')",
        "timestamp with time zone": f"(TIMESTAMPTZ '2026-01-01 00:00Z' + ({row}) * INTERVAL '1 hour')",
        "time without time zone": f"(TIME '00:00' + ({row}) * INTERVAL '1 minute')",
        "time with time zone": f"(TIMETZ '00:00Z' + ({row}) * INTERVAL '1 minute')",
        "interval": f"(({row}) * INTERVAL '1 hour')",
        "bytea": f"decode(lpad(to_hex({row}), 4, '0'), 'hex')",
        "json": f"""('{{"a": ' || {row} || '}}')""",
        "jsonb": f"""('{{"a": ' || {row} || '}}')""",
        "inet": f"('10.0.0.' || {row} % 250)",
        "cidr": f"('10.0.' || {row} % 250 || '.0/24')",
        "bit": f"({row})::bit({found[1] if found else 1})",
        "bit varying": f"({row})::bit({found[1] if found else 8})",
        "vector": f"(array_fill(({row})::real, ARRAY[{found[1] if found else 3}]))",
        "halfvec": f"(array_fill(({row})::real, ARRAY[{found[1] if found else 3}]))",
        "tsvector": f"to_tsvector('simple', 'word ' || {row})",
        "tsquery": f"to_tsquery('simple', 'word' || {row})",
        "ltree": f"('a.b' || {row})",
        "int4range": f"int4range(({row})::int, ({row})::int + 1)",
        "int8range": f"int8range({row}, {row} + 1)",
        "numrange": f"numrange({row}, {row} + 1)",
        "daterange": f"daterange(DATE '2026-01-01' + ({row})::int, DATE '2026-01-02' + ({row})::int)",
        "tstzrange": f"tstzrange(TIMESTAMPTZ '2026-01-01 00:00Z' + ({row}) * INTERVAL '1 hour', "
        f"TIMESTAMPTZ '2026-01-01 01:00Z' + ({row}) * INTERVAL '1 hour')",
        "tsrange": f"tsrange(TIMESTAMP '2026-01-01' + ({row}) * INTERVAL '1 hour', "
        f"TIMESTAMP '2026-01-01 01:00' + ({row}) * INTERVAL '1 hour')",
    }
    return simple.get(base, "")


def dangling(columns: Sequence[str], keys: Sequence[str], target: str) -> str:
    """Return the condition that a row `t` refers by these columns to nothing in the table `target`."""
    pairs = [(plain.quote(column), plain.quote(key)) for column, key in zip(columns, keys, strict=True)]
    filled = " AND ".join(f"t.{column} IS NOT NULL" for column, _ in pairs)
    found = " AND ".join(f"t.{column} = r.{key}" for column, key in pairs)
    return f"{filled} AND NOT EXISTS (SELECT FROM {target} r WHERE {found})"


def _edges(row: str, unique: bool, usual: str, edges: Sequence[str]) -> str:
    if unique:
        return usual
    cases = " ".join(f"WHEN {number} THEN '{edge}'" for number, edge in enumerate(edges, 1))
    return f"CASE {row} {cases} ELSE {usual} END"


def _around(number: str) -> Iterator[Decimal]:
    yield from (Decimal(number) + change for change in (0, 1, -1))


def _names(column: str, condition: str) -> bool:
    return re.search(rf'(?<![\w"]){re.escape(column)}(?![\w"])|"{re.escape(column)}"', condition) is not None


def _numbered(text_: str, row: str) -> str:
    return (
        f"replace({plain.literal(text_)}, '{{i}}', ({row})::text)" if "{i}" in text_ else plain.literal(text_)
    )
