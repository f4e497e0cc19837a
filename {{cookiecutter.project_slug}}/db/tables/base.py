"""The base of every table class. It is the chassis' own, so that all tables have one history."""

from chassis.database.base import Base

__all__ = ["Base"]
