"""What has to be done to tables that exist, so that PostgreSQL prints them as it prints those of the classes.

The way there is written with the classes' own objects, as people write it; the way back from what PostgreSQL
printed of the database, which is exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alembic.operations import MigrateOperation
from alembic.operations.ops import (
    AddColumnOp,
    AddConstraintOp,
    AlterColumnOp,
    CreateCheckConstraintOp,
    CreateIndexOp,
    DropColumnOp,
    DropConstraintOp,
    DropIndexOp,
)
from alembic.util import CommandError, msg
from sqlalchemy import CheckConstraint, Connection, Constraint, Index, text
from sqlalchemy import Column as DeclaredColumn
from sqlalchemy import Table as DeclaredTable
from sqlalchemy.sql.elements import conv

from chassis.migrations.casts import using
from chassis.migrations.catalogue import Catalogue, Column, Key, Part, Table
from chassis.migrations.enums import added, dropped, spelled
from chassis.migrations.operations import AlterColumn, Sql, Step, literal
from chassis.migrations.ownership import Ownership
from chassis.migrations.rendering import render_expression

KINDS = {"c": "check", "f": "foreignkey", "p": "primary", "u": "unique", "x": None}
Change = tuple[str, MigrateOperation]


@dataclass(frozen=True)
class TableChanges:
    """The changes of one table, each with the phase that it belongs to (see chassis/migrations/order.py)."""

    connection: Connection
    key: Key
    database: Table
    classes: Table
    declared: DeclaredTable
    ownership: Ownership

    def parts(self, keys_remade: set[tuple[Key, str]]) -> tuple[dict[str, Part], dict[str, Part]]:
        """Return the constraints and indexes to drop, and those to make.

        With a column that is made anew goes what is on it. `keys_remade` are the constraints, of any table, that
        are dropped: the foreign keys to them go too.
        """
        remade = {
            n
            for n, c in self.classes.columns.items()
            if n in self.database.columns and self._is_remade(self.database.columns[n], c)
        }
        drop, make = {}, {}
        for name in self.database.parts.keys() | self.classes.parts.keys():
            had, wanted = self.database.parts.get(name), self.classes.parts.get(name)
            same = had is not None and wanted is not None and had[:2] == wanted[:2]
            needs = had is not None and (
                had.columns & remade or (had.target, had.target_constraint) in keys_remade
            )
            if same and not needs:
                continue
            if had is not None and wanted is None and self.ownership.made_by_hand(name):
                if needs:
                    raise CommandError(
                        f"{name} of {self._name} was made by SQL, and a column that it needs is made anew: write the revision by hand."
                    )
                continue
            if had is not None and had.columns <= self.database.columns.keys():
                drop[name] = had
            if wanted is not None:
                make[name] = wanted
        return drop, make

    def find(
        self, drop: dict[str, Part], make: dict[str, Part], with_default: set[tuple[Key, str]]
    ) -> Iterator[Change]:
        """Yield the changes, with these constraints and indexes dropped and made."""
        if self.database.unlogged != self.classes.unlogged:
            sides = [
                Sql(f"ALTER TABLE {self._sql} SET {'UNLOGGED' if side.unlogged else 'LOGGED'}")
                for side in (self.classes, self.database)
            ]
            yield "change tables", Step(sides[:1], sides[1:])
        if self.database.comment != self.classes.comment:
            sides = [
                Sql(f"COMMENT ON TABLE {self._sql} IS {literal(s.comment) if s.comment else 'NULL'}")
                for s in (self.classes, self.database)
            ]
            yield "change tables", Step(sides[:1], sides[1:])
        if self.database.partition_by != self.classes.partition_by:
            raise CommandError(
                f"{self._name} is to be partitioned by {self.classes.partition_by or 'nothing'}: PostgreSQL can't change "
                "that of a table that is there. Write a revision by hand that makes a new table and moves the rows."
            )
        for name, part in sorted(drop.items()):
            yield "drop foreign keys" if part.kind == "f" else "drop parts", self._drop_part(name, part)
        for name, part in sorted(make.items()):
            phase = (
                "make foreign keys"
                if part.kind == "f"
                else "make keys"
                if part.kind in "pu"
                else "make parts"
            )
            yield phase, self._make_part(name, part)
        for name, column in self.database.columns.items():
            if name not in self.classes.columns and not self.ownership.made_by_hand(name):
                yield (
                    "drop columns",
                    Step(
                        [DropColumnOp(self.key[1], name, schema=self.key[0])],
                        self._add_column(name, column),
                    ),
                )
        for declared in self.declared.columns:
            name = declared.name
            if name not in self.database.columns:
                drop_again = DropColumnOp(self.key[1], name, schema=self.key[0])
                yield (
                    "add columns",
                    Step([AddColumnOp(self.key[1], _bare(declared), schema=self.key[0])], [drop_again]),
                )
            elif name in self.classes.columns:
                yield from self._change_column(
                    declared,
                    self.database.columns[name],
                    self.classes.columns[name],
                    (self.key, name) in with_default,
                )

    def _drop_part(self, name: str, part: Part) -> Step:
        schema, table = self.key
        up: MigrateOperation
        if part.kind == "i":
            up = DropIndexOp(conv(name), table_name=table, schema=schema)
        else:
            up = DropConstraintOp(conv(name), table, type_=KINDS[part.kind], schema=schema)
        return Step([up], [Sql(added(self.key, name, part.kind, part.definition, self._preparer))])

    def _make_part(self, name: str, part: Part) -> Step:
        back = Sql(dropped(self.key, name, part.kind, self._preparer))
        make: MigrateOperation = Sql(added(self.key, name, part.kind, part.definition, self._preparer))
        for index in self.declared.indexes:
            if part.kind == "i" and _final_name(index, self.connection) == name:
                make = CreateIndexOp.from_index(index)
        for constraint in self.declared.constraints:
            if part.kind in "cfu" and _final_name(constraint, self.connection) == name:
                make = AddConstraintOp.from_constraint(constraint)
                if isinstance(constraint, CheckConstraint):
                    # As a text: an expression of columns would join the class's own table once more.
                    condition = text(render_expression(constraint.sqltext, self.connection.dialect))
                    make = CreateCheckConstraintOp(conv(name), self.key[1], condition, schema=self.key[0])
        return Step([make], [back])

    def _is_remade(self, had: Column, wanted: Column) -> bool:
        """Whether a column is dropped and added: PostgreSQL changes no expression of a generated column before 17."""
        if had.generated and not wanted.generated and had.type == wanted.type:
            return True  # on the way back
        return (had.generated, wanted.generated) != ("", "") and had[:5] != wanted[:5]

    def _change_column(
        self, declared: DeclaredColumn[Any], had: Column, wanted: Column, default_is_changed: bool
    ) -> Iterator[Change]:
        if had[:8] == wanted[:8]:
            return
        name = declared.name
        where, alter = (
            f"{self._name}.{name}",
            f"ALTER TABLE {self._sql} ALTER COLUMN {self._preparer.quote(name)}",
        )
        drop = DropColumnOp(self.key[1], name, schema=self.key[0])
        if self._is_remade(had, wanted):
            if not wanted.generated and had.type == wanted.type:
                up: list[MigrateOperation] = [Sql(f"{alter} DROP EXPRESSION")]
            else:
                if not had.generated:
                    msg(f"{where}: its values give way to what the expression makes.")
                up = [drop, AddColumnOp(self.key[1], _bare(declared), schema=self.key[0])]
            yield "change columns", Step(up, [drop, *self._add_column(name, had)])
            return
        if default_is_changed:
            had = had._replace(default=wanted.default)
        sequence = self._change_sequence(declared, had, wanted, alter)
        up = self._alter(declared, had, wanted)
        back: list[MigrateOperation] = [
            Sql(f"{alter} {action}") for action in self._actions(name, wanted, had, back=True)
        ]
        if had.comment != wanted.comment:
            back.append(self._comment(name, had))
        if up or sequence.up:
            # An identity wants NOT NULL first, and takes its sequence's type from the column.
            yield "change columns", Step([*up, *sequence.up], [*sequence.down, *back])

    def _alter(self, declared: DeclaredColumn[Any], had: Column, wanted: Column) -> list[MigrateOperation]:
        """Return what alters a column in the words of Alembic."""
        options: dict[str, Any] = {"schema": self.key[0]}
        new_type = had[:2] != wanted[:2]
        new_default = had.default != wanted.default and not wanted.sequence
        apart = new_type and had.default != ""
        changed: dict[str, Any] = {}
        if new_type:
            changed["modify_type"] = declared.type
            if expression := self._using(declared.name, had.type, wanted.type):
                changed["postgresql_using"] = expression
        if had.not_null != wanted.not_null:
            changed["modify_nullable"] = not wanted.not_null
        if had.comment != wanted.comment:
            changed["modify_comment"] = wanted.comment or None
        if new_default and not apart:
            changed["modify_server_default"] = declared.server_default if wanted.default else None
        steps: list[MigrateOperation] = []
        if apart:
            steps.append(AlterColumnOp(self.key[1], declared.name, modify_server_default=None, **options))
        if changed:
            steps.append(AlterColumn(self.key[1], declared.name, **options, **changed))
        if apart and wanted.default:
            steps.append(
                AlterColumnOp(
                    self.key[1], declared.name, modify_server_default=declared.server_default, **options
                )
            )
        return steps

    def _actions(self, name: str, source: Column, target: Column, *, back: bool) -> Iterator[str]:
        """Yield what ALTER COLUMN has to do to make one form of a column the other."""
        if source[:2] != target[:2]:
            if source.default:
                yield "DROP DEFAULT"
            collation = f" COLLATE {target.collation}" if target.collation else ""
            expression = self._using(name, source.type, target.type, back=back)
            yield f"TYPE {target.type}{collation}" + (f" USING {expression}" if expression else "")
            if target.default:
                yield f"SET DEFAULT {target.default}"
        elif source.default != target.default and not target.sequence:
            yield f"SET DEFAULT {target.default}" if target.default else "DROP DEFAULT"
        if source.not_null != target.not_null and not source.identity:
            yield "SET NOT NULL" if target.not_null else "DROP NOT NULL"

    def _using(self, name: str, source: str, target: str, *, back: bool = False) -> str:
        expression = using(self.connection, self._preparer.quote(name), source, target, back=back)
        if expression is None:
            way = "back " if back else ""
            raise CommandError(
                f"{self._name}.{name}: PostgreSQL doesn't know how values of the type {source} become {target} {way}by "
                'themselves. Write this revision by hand, and say how: op.alter_column(…, type_=…, postgresql_using="…").'
            )
        return expression

    def _change_sequence(
        self, declared: DeclaredColumn[Any], had: Column, wanted: Column, alter: str
    ) -> Step:
        """Return what changes an identity or a serial column's sequence, with the rows' numbers kept in mind."""
        if (had.identity, had.sequence) == (wanted.identity, wanted.sequence):
            return Step([], [])
        if bool(had.sequence) == bool(wanted.sequence) and bool(had.identity) == bool(wanted.identity):
            follows = had.identity and had.type != wanted.type and _options(had) == _options(wanted)
            if had.identity == wanted.identity and follows:
                return Step([], [])
            return Step(self._options(had, wanted, alter), self._options(wanted, had, alter))
        return Step(
            [
                *self._without_sequence(had, alter, declared.name),
                *self._with_sequence(wanted, alter, declared.name),
            ],
            [
                *self._without_sequence(wanted, alter, declared.name),
                *self._with_sequence(had, alter, declared.name),
            ],
        )

    def _options(self, had: Column, wanted: Column, alter: str) -> list[Sql]:
        if wanted.identity:
            options = "".join(f" SET {option}" for option in _options(wanted) if option not in _options(had))
            always = (
                f" SET GENERATED {'ALWAYS' if wanted.identity == 'a' else 'BY DEFAULT'}"
                if had.identity != wanted.identity
                else ""
            )
            return [Sql(f"{alter}{always}{options}")] if always or options else []
        cycle = "" if "CYCLE" in wanted.sequence else " NO CYCLE"
        return [
            Sql(f"ALTER SEQUENCE {had.sequence_name or wanted.sequence_name} AS {wanted.sequence}{cycle}")
        ]

    def _without_sequence(self, column: Column, alter: str, name: str) -> Iterator[Sql]:
        if column.identity:
            yield Sql(f"{alter} DROP IDENTITY")
        elif column.sequence:
            yield Sql(f"{alter} DROP DEFAULT")
            yield Sql(f"DROP SEQUENCE {column.sequence_name}")

    def _with_sequence(self, column: Column, alter: str, name: str) -> Iterator[Sql]:
        quoted = self._preparer.quote(name)
        if column.identity:
            kind = "ALWAYS" if column.identity == "a" else "BY DEFAULT"
            yield Sql(f"{alter} ADD GENERATED {kind} AS IDENTITY ({column.sequence.partition(' ')[2]})")
        elif column.sequence:
            yield Sql(
                f"CREATE SEQUENCE {column.sequence_name} AS {column.sequence} OWNED BY {self._sql}.{quoted}"
            )
            yield Sql(f"{alter} SET DEFAULT nextval({literal(column.sequence_name)}::regclass)")
        if column.sequence:
            # So that the next number is none that a row has already.
            where = f"pg_get_serial_sequence({literal(self._sql)}, {literal(name)})"
            highest = f"max({quoted})"
            yield Sql(f"SELECT setval({where}, {highest}) FROM {self._sql} HAVING {highest} IS NOT NULL")  # noqa: S608

    def _add_column(self, name: str, column: Column) -> list[Sql]:
        """Return what adds a column as PostgreSQL printed it."""
        words = [f"ALTER TABLE {self._sql} ADD COLUMN {self._preparer.quote(name)} {column.type}"]
        if column.collation:
            words.append(f"COLLATE {column.collation}")
        if column.generated:
            words.append(
                f"GENERATED ALWAYS AS ({column.default}) {'STORED' if column.generated == 's' else 'VIRTUAL'}"
            )
        elif column.identity:
            words.append(
                f"GENERATED {'ALWAYS' if column.identity == 'a' else 'BY DEFAULT'} AS IDENTITY ({column.sequence.partition(' ')[2]})"
            )
        elif column.sequence:
            words[0] = (
                words[0].removesuffix(column.type)
                + {"integer": "serial", "bigint": "bigserial", "smallint": "smallserial"}[column.type]
            )
        elif column.default:
            words.append(f"DEFAULT {column.default}")
        if column.not_null:
            words.append("NOT NULL")
        comment = self._comment(name, column)
        return [Sql(" ".join(words)), *([comment] if column.comment else [])]

    def _comment(self, name: str, column: Column) -> Sql:
        said = literal(column.comment) if column.comment else "NULL"
        return Sql(f"COMMENT ON COLUMN {self._sql}.{self._preparer.quote(name)} IS {said}")

    @property
    def _preparer(self) -> Any:
        return self.connection.dialect.identifier_preparer

    @property
    def _sql(self) -> str:
        return spelled(self.key, self._preparer)

    @property
    def _name(self) -> str:
        schema, table = self.key
        return f"{schema}.{table}" if schema else table


def _options(column: Column) -> list[str]:
    """The options of a sequence, without its type."""
    words = column.sequence.removesuffix(" CYCLE").split()[1:]
    cycle = "CYCLE" if column.sequence.endswith(" CYCLE") else "NO CYCLE"
    return [*(f"{option} {value}" for option, value in zip(words[::2], words[1::2], strict=True)), cycle]


def _bare(column: DeclaredColumn[Any]) -> DeclaredColumn[Any]:
    """The column without what is made apart: its constraints and indexes."""
    copy = column._copy()
    copy.unique = copy.index = None
    return copy


def _final_name(item: Index | Constraint, connection: Connection) -> str | None:
    """The name that a constraint or an index has in the database, by the naming convention."""
    preparer = connection.dialect.identifier_preparer
    quoted = preparer.format_constraint(item)
    return None if quoted is None else quoted.strip('"').replace('""', '"')


def catalogue_tables(database: Catalogue, classes: Catalogue, ownership: Ownership) -> list[Key]:
    """Return the tables of ours that both sides have."""
    return sorted(
        (key for key in database.tables.keys() & classes.tables.keys() if ownership.owns_table(*key)), key=str
    )
