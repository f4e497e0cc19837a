"""Incidents and knowledge: joins the two examples' revisions, either of which may be left out.

Revision ID: b83d6f1e4c95
Revises: 7c0e5b9d2a41, e4a1c8f70b36
Create Date: 2026-11-26 07:30:00+00:00
"""

from collections.abc import Sequence

revision: str = "b83d6f1e4c95"
down_revision: str | Sequence[str] | None = ("7c0e5b9d2a41", "e4a1c8f70b36")
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply the revision."""


def downgrade() -> None:
    """Take the revision back."""
