"""Every table class, those of each module of this folder.

Alembic knows the tables whose classes are imported, and that happens here.
"""

from importlib import import_module
from pkgutil import iter_modules

from db.tables.base import Base

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Base"]
