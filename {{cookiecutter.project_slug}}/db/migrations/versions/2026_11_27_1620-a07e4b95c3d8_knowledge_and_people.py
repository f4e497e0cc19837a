"""Knowledge and people who call: joins the example's revision and the chassis' newest.

Revision ID: a07e4b95c3d8
Revises: c6f20d8e9a57, 9b4d7e2c81f0
Create Date: 2026-11-27 16:20:00+00:00
"""

from collections.abc import Sequence

revision: str = "a07e4b95c3d8"
down_revision: str | Sequence[str] | None = ("c6f20d8e9a57", "9b4d7e2c81f0")
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply the revision."""


def downgrade() -> None:
    """Take the revision back."""
