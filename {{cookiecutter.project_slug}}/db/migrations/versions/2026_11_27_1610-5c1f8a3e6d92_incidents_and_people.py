"""Incidents and people who call: joins the example's revision and the chassis' newest.

Revision ID: 5c1f8a3e6d92
Revises: 7c0e5b9d2a41, 9b4d7e2c81f0
Create Date: 2026-11-27 16:10:00+00:00
"""

from collections.abc import Sequence

revision: str = "5c1f8a3e6d92"
down_revision: str | Sequence[str] | None = ("7c0e5b9d2a41", "9b4d7e2c81f0")
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply the revision."""


def downgrade() -> None:
    """Take the revision back."""
