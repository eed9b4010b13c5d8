"""Jobs tell how near they came to the least time, and what limited them

Revision: 0006, after 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not in a batch, as in 0005. Of jobs that have ended nobody knows.
    op.add_column("jobs", sa.Column("figures", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "figures")
