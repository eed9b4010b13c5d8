"""Secrets have owners, grants and hosts; those that name no host are disabled

Revision: 0002, after 0001
"""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

log = logging.getLogger(__name__)
NO_HOSTS = "no-hosts"
SECRETS = sa.table(
    "secrets",
    sa.column("name", sa.String),
    sa.column("hosts", sa.JSON),
    sa.column("created_by", sa.String),
    sa.column("owner_id", sa.String),
    sa.column("disabled", sa.String),
)
USERS = sa.table("users", sa.column("id", sa.String), sa.column("name", sa.String))


def upgrade() -> None:
    with op.batch_alter_table("secrets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("owner_id", sa.String(length=64), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("allow_http", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("disabled", sa.String(length=64), nullable=False, server_default=""))
        batch_op.create_index(batch_op.f("ix_secrets_owner_id"), ["owner_id"], unique=False)
    with op.batch_alter_table("secrets", schema=None) as batch_op:
        for name in ("owner_id", "allow_http", "disabled"):
            batch_op.alter_column(name, server_default=None)
    op.create_table(
        "secret_grants",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("secret", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=True),
        sa.Column("role", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["role"], ["roles.name"], name=op.f("fk_secret_grants_role_roles"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["secret"], ["secrets.name"], name=op.f("fk_secret_grants_secret_secrets"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_secret_grants_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secret_grants")),
        sa.UniqueConstraint("secret", "role", name=op.f("uq_secret_grants_secret_role")),
        sa.UniqueConstraint("secret", "user_id", name=op.f("uq_secret_grants_secret_user_id")),
    )
    with op.batch_alter_table("secret_grants", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_secret_grants_role"), ["role"], unique=False)
        batch_op.create_index(batch_op.f("ix_secret_grants_user_id"), ["user_id"], unique=False)
    _settle(op.get_bind())


def _settle(connection: sa.Connection) -> None:
    """Each gets its owner; what could be sent anywhere is sent nowhere until somebody says where to."""
    ids = {name: id for id, name in connection.execute(sa.select(USERS.c.id, USERS.c.name))}
    found = connection.execute(sa.select(SECRETS.c.name, SECRETS.c.hosts, SECRETS.c.created_by)).all()
    for name, hosts, created_by in found:
        named = any(any(c.isalnum() for c in str(host)) for host in hosts or ())
        if not named:
            log.warning("secret %r is disabled: it names no hosts; replace it with those it is for", name)
        connection.execute(
            SECRETS.update()
            .where(SECRETS.c.name == name)
            .values(owner_id=ids.get(created_by, ""), disabled="" if named else NO_HOSTS)
        )


def downgrade() -> None:
    with op.batch_alter_table("secret_grants", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_secret_grants_user_id"))
        batch_op.drop_index(batch_op.f("ix_secret_grants_role"))
    op.drop_table("secret_grants")
    with op.batch_alter_table("secrets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_secrets_owner_id"))
        for name in ("disabled", "allow_http", "owner_id"):
            batch_op.drop_column(name)
