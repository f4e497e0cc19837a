"""How the values of a column become those of another type: by themselves, by a USING, or only by a person's word."""

from sqlalchemy import Connection, text

# The cast from one type to another: "i" and "a" happen by themselves, "e" has to be asked for.
# https://www.postgresql.org/docs/current/catalog-pg-cast.html
FOUND = text("""
    SELECT (SELECT c.castcontext::text FROM pg_cast c WHERE c.castsource = s.oid AND c.casttarget = t.oid),
           s.oid = t.oid, s.typcategory = 'S', t.typcategory = 'S', coalesce(s.typtype = 'e', true), coalesce(t.typtype = 'e', true)
      FROM (VALUES (1)) one
      LEFT JOIN pg_type s ON s.oid = to_regtype(:source)
      LEFT JOIN pg_type t ON t.oid = to_regtype(:target)
""")


def using(connection: Connection, column: str, source: str, target: str, *, back: bool = False) -> str | None:
    """Return the USING that makes values of the type `target` of a column's of the type `source`.

    Args:
        connection: to the database.
        column: the column, quoted.
        source: the type that it has, as PostgreSQL prints it.
        target: the type that it gets; an enum type may be yet to be made.
        back: whether it is the way back, where an array of one value becomes that value.

    Returns:
        "" where none is needed, None where no expression is certain.
    """
    item, wanted = source.removesuffix("[]"), target.removesuffix("[]")
    if (source.endswith("[]"), target.endswith("[]")) == (False, True):
        if _context(connection, item, wanted.removesuffix("[]")) is None:
            return None
        return f"CASE WHEN {column} IS NOT NULL THEN ARRAY[{column}]::{target} END"
    if (source.endswith("[]"), target.endswith("[]")) == (True, False):
        return f"{column}[1]::{target}" if back else None
    context = _context(connection, item.rstrip("[]"), wanted.rstrip("[]"))
    if context == "enum":
        arrays = "[]" if source.endswith("[]") else ""
        return f"{column}::text{arrays}::{target}"
    return None if context is None else "" if context in "ia" else f"{column}::{target}"


def _context(connection: Connection, source: str, target: str) -> str | None:
    row = connection.execute(FOUND, {"source": source, "target": target}).one()
    # What isn't there yet is an enum type that the same revision makes.
    cast, same, from_text, to_text, from_enum, to_enum = row
    if same or (to_text and cast is None):
        return "i"
    if cast is not None:
        return str(cast)
    if from_enum and to_enum:
        return "enum"
    return "e" if from_text else None
