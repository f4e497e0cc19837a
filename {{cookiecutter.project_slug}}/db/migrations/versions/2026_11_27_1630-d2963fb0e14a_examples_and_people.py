"""Both examples and people who call: joins their revisions and the chassis' newest.

Revision ID: d2963fb0e14a
Revises: b83d6f1e4c95, c6f20d8e9a57, 9b4d7e2c81f0
Create Date: 2026-11-27 16:30:00+00:00
"""

from collections.abc import Sequence

revision: str = "d2963fb0e14a"
down_revision: str | Sequence[str] | None = ("b83d6f1e4c95", "c6f20d8e9a57", "9b4d7e2c81f0")
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply the revision."""


def downgrade() -> None:
    """Take the revision back."""
