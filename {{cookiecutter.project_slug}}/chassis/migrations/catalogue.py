"""What PostgreSQL's catalogue says of tables: each column, constraint, index and enum type as the server prints it.

Two forms are equal when the server prints them alike, however they were written.
https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-CATALOG
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Connection, text

# A schema of None is the default one.
Key: TypeAlias = tuple[str | None, str]


class Column(NamedTuple):
    """A column as pg_attribute has it.

    An identity or serial column has a `sequence`, the options of which are listed; where the default only draws
    from it, `default` is empty.
    """

    type: str
    collation: str
    not_null: bool
    default: str
    generated: str
    identity: str
    sequence: str
    comment: str
    sequence_name: str = ""


class Part(NamedTuple):
    """A constraint or an index: its kind (pg_constraint.contype, or i), how it is written, which columns it needs."""

    kind: str
    definition: str
    columns: frozenset[str]
    # For a foreign key: the table that it refers to, and the constraint of that table.
    target: Key | None = None
    target_constraint: str = ""


@dataclass
class Table:
    """A table, whether ordinary or partitioned; `partition_by` is empty for the former."""

    partition_by: str
    unlogged: bool
    comment: str
    columns: dict[str, Column] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)


@dataclass
class Catalogue:
    """All tables and enum types of some schemas. Partitions are left out: their parent says all that a class could."""

    tables: dict[Key, Table] = field(default_factory=dict)
    enums: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    # Which columns have an enum type, or an array of it.
    enum_columns: dict[Key, list[tuple[Key, str]]] = field(default_factory=lambda: defaultdict(list))


TABLES = text("""
    SELECT n.nspname, c.relname, coalesce(pg_get_partkeydef(c.oid), ''), c.relpersistence = 'u',
           coalesce(obj_description(c.oid, 'pg_class'), '')
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY(:schemas) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
""")
# The dimensions of an array are left out: PostgreSQL doesn't enforce them, and a restored dump has lost them.
COLUMNS = text("""
    WITH owned AS (
        SELECT d.refobjid, d.refobjsubid, d.objid,
               format('%s START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s', format_type(s.seqtypid, NULL),
                      s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                      CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END) AS options
          FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    )
    SELECT n.nspname, c.relname, a.attname,
           format_type(a.atttypid, a.atttypmod),
           coalesce((SELECT quote_ident(l.collname) FROM pg_collation l
                      WHERE l.oid = a.attcollation AND a.attcollation <> t.typcollation), ''),
           a.attnotnull,
           CASE WHEN o.objid IS NOT NULL AND EXISTS (
                    SELECT FROM pg_depend u WHERE u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid
                       AND u.refobjid = o.objid)
                THEN '' ELSE coalesce(pg_get_expr(d.adbin, d.adrelid), '') END,
           a.attgenerated::text, a.attidentity::text, coalesce(o.options, ''),
           coalesce(col_description(c.oid, a.attnum), ''), coalesce(o.objid::regclass::text, '')
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      LEFT JOIN owned o ON o.refobjid = a.attrelid AND o.refobjsubid = a.attnum
     WHERE n.nspname = ANY(:schemas) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attrelid, a.attnum
""")
# Whether a constraint holds for old rows too is a state, not a form, so NOT VALID is left out.
CONSTRAINTS = text("""
    SELECT n.nspname, c.relname, k.conname, k.contype::text,
           regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', ''),
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey)),
           fn.nspname, f.relname,
           (SELECT u.conname FROM pg_constraint u
             WHERE k.contype = 'f' AND u.conindid = k.conindid AND u.contype IN ('p', 'u') LIMIT 1)
      FROM pg_constraint k
      JOIN pg_class c ON c.oid = k.conrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_class f ON f.oid = k.confrelid
      LEFT JOIN pg_namespace fn ON fn.oid = f.relnamespace
     WHERE n.nspname = ANY(:schemas) AND k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.conparentid = 0
       AND NOT c.relispartition
""")
INDEXES = text("""
    SELECT n.nspname, c.relname, x.relname, 'i',
           pg_get_indexdef(i.indexrelid, 0, true) || CASE WHEN i.indisvalid THEN '' ELSE ' (invalid)' END,
           ARRAY(SELECT a.attname::text FROM pg_depend d
                   JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid = i.indrelid),
           NULL, NULL, NULL
      FROM pg_index i
      JOIN pg_class x ON x.oid = i.indexrelid
      JOIN pg_class c ON c.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY(:schemas) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
""")
ENUMS = text("""
    SELECT n.nspname, t.typname, ARRAY(SELECT e.enumlabel::text FROM pg_enum e
                                        WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE n.nspname = ANY(:schemas) AND t.typtype = 'e'
""")
ENUM_COLUMNS = text("""
    SELECT tn.nspname, t.typname, n.nspname, c.relname, a.attname
      FROM pg_attribute a
      JOIN pg_type u ON u.oid = a.atttypid
      JOIN pg_type t ON t.oid IN (u.oid, u.typelem) AND t.typtype = 'e'
      JOIN pg_namespace tn ON tn.oid = t.typnamespace
      JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE tn.nspname = ANY(:schemas) AND NOT a.attisdropped
     ORDER BY n.nspname, c.relname, a.attnum
""")


def describe(
    connection: Connection, schemas: Mapping[str, str | None], spell: Callable[[str], str] = str
) -> Catalogue:
    """Describe what is in some schemas.

    Args:
        connection: to the database.
        schemas: the names of the schemas -> what they are called in the description.
        spell: changes each printed text, where the schemas stand for others.
    """

    def rows(query: Any) -> Any:
        return connection.execute(query, {"schemas": list(schemas)})

    found = Catalogue()
    for schema, name, partition_by, unlogged, comment in rows(TABLES):
        found.tables[schemas[schema], name] = Table(partition_by, unlogged, comment)
    for schema, table, name, type_, collation, not_null, default, *rest in rows(COLUMNS):
        column = Column(spell(type_), collation, not_null, spell(default), *rest)
        found.tables[schemas[schema], table].columns[name] = column
    for query in (CONSTRAINTS, INDEXES):
        for schema, table, name, kind, definition, columns, to_schema, to_table, to_constraint in rows(query):
            target = (schemas.get(to_schema, to_schema), to_table) if to_table else None
            found.tables[schemas[schema], table].parts[name] = Part(
                kind, spell(definition), frozenset(columns), target, to_constraint or ""
            )
    for schema, name, labels in rows(ENUMS):
        found.enums[schemas[schema], name] = tuple(labels)
    for enum_schema, enum, schema, table, column in rows(ENUM_COLUMNS):
        key = (schemas.get(schema, schema), table)
        found.enum_columns[schemas[enum_schema], enum].append((key, column))
    return found
