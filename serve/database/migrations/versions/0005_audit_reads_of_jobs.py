"""Jobs tell what all their nodes have read at the origin to compare

Revision: 0005, after 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not in a batch, which makes SQLite's table anew: the rows that refer to the former one would go with it. For the
    # same reason the default stays.
    op.add_column("jobs", sa.Column("bytes_audit", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "update jobs set bytes_audit = "
        "coalesce((select sum(n.bytes_audit) from job_nodes n where n.job_id = jobs.id), 0)"
    )


def downgrade() -> None:
    op.drop_column("jobs", "bytes_audit")
