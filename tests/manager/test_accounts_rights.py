"""Users, roles and tokens: nobody gives, takes or takes over rights that they do not have."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import select, update

from dragonfly_ray.serve.accounts import rights
from dragonfly_ray.serve.database.tables import Audit, Role, SignIn, Token, User, now
from dragonfly_ray.serve.permissions import BUILTIN_ROLES, EVERYTHING, Permission
from dragonfly_ray.serve.settings import ManagerSettings, Tokens
from tests.manager import people
from tests.manager.people import API, PASSWORD, bearer, browser, database_of, problem, signed_in, sqlite_only

P = Permission
Clients = Callable[[str], httpx.Client]


@pytest.fixture
def admin(client: TestClient, app: FastAPI) -> TestClient:
    """The first one, with a session."""
    return signed_in(app, "admin", "correct horse battery")


@pytest.fixture
def clerk(client: TestClient, app: FastAPI) -> TestClient:
    """Keeps users, roles and nothing else; and may see jobs."""
    database = database_of(app)
    own = [P.USERS_READ, P.USERS_WRITE, P.ROLES_READ, P.ROLES_WRITE, P.JOBS_READ]
    people.user(database, "clerk", people.role(database, "clerk", own))
    return signed_in(app, "clerk")


def made(answer: Any) -> Any:
    """The body of what succeeded."""
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def create_user(client: httpx.Client, name: str, role: str, **more: Any) -> httpx.Response:
    return client.post(f"{API}/users", json={"name": name, "role": role, "password": PASSWORD} | more)


def change(client: httpx.Client, path: str, **body: Any) -> httpx.Response:
    return client.patch(f"{API}/{path}", json=body, headers={"If-Match": "*"})


def me(client: httpx.Client) -> Any:
    return made(client.get(f"{API}/session"))


# --- users ---


def test_a_user_from_its_start_to_its_end(admin: TestClient, app: FastAPI) -> None:
    answer = create_user(admin, "Vera V.", "viewer")
    user = made(answer)
    path = answer.headers["location"]
    assert path == f"{API}/users/{user['id']}"
    assert answer.headers["etag"] == '"1"'
    assert admin.get(path).json() == user
    vera = signed_in(app, "Vera V.")
    assert me(vera)["role"] == "viewer"
    changed = admin.patch(path, json={"role": "operator"}, headers={"If-Match": '"1"'})
    assert (made(changed)["role"], changed.headers["etag"]) == ("operator", '"2"')
    assert me(vera)["role"] == "operator"
    assert admin.patch(path, json={"role": "viewer"}, headers={"If-Match": '"1"'}).status_code == 412
    assert admin.patch(path, json={"role": "viewer"}).status_code == 428
    assert admin.delete(path).status_code == 204
    assert vera.get(f"{API}/session").status_code == 401
    assert admin.get(path).status_code == admin.delete(path).status_code == 404
    with database_of(app).read() as session:
        rows = session.scalars(select(Audit).where(Audit.resource_id == user["id"]).order_by(Audit.id))
        assert [r.action for r in rows] == ["user.create", "session.create", "user.change", "user.delete"]


def test_there_is_no_open_sign_up(client: TestClient) -> None:
    assert create_user(client, "me", "admin").status_code == 401


def test_names_are_there_once(admin: TestClient) -> None:
    assert create_user(admin, "vera", "viewer").status_code == 201
    answer = create_user(admin, "vera", "operator")
    assert (answer.status_code, problem(answer)) == (409, "exists")


def test_one_of_two_at_once_gets_the_name(admin: TestClient, app: FastAPI, settings: ManagerSettings) -> None:
    with people.replica(settings) as other:
        clients = [signed_in(a, "admin", "correct horse battery") for a in (app, other)] * 3
        with ThreadPoolExecutor(len(clients)) as pool:
            found = list(pool.map(lambda c: create_user(c, "vera", "viewer").status_code, clients))
    assert sorted(found) == [201] + [409] * 5


def test_a_disabled_user_is_out_at_once_and_everywhere(
    admin: TestClient, app: FastAPI, settings: ManagerSettings
) -> None:
    user = made(create_user(admin, "vera", "viewer"))
    with people.replica(settings) as other:
        token = made(signed_in(app, "vera").post(f"{API}/tokens", json={"name": "t"}))["token"]
        session, robot = signed_in(other, "vera"), bearer(other, token)
        assert robot.get(f"{API}/session").status_code == session.get(f"{API}/session").status_code == 200
        assert change(admin, f"users/{user['id']}", disabled=True).status_code == 200
        assert robot.get(f"{API}/session").status_code == session.get(f"{API}/session").status_code == 401
        assert people.sign_in(browser(other), "vera").status_code == 401
        assert change(admin, f"users/{user['id']}", disabled=False).status_code == 200
        assert robot.get(f"{API}/session").status_code == 200
        # Sessions were ended, not only kept out.
        assert session.get(f"{API}/session").status_code == 401


def test_a_password_set_by_an_admin_ends_sessions(admin: TestClient, app: FastAPI) -> None:
    user = made(create_user(admin, "vera", "viewer"))
    vera = signed_in(app, "vera")
    assert change(admin, f"users/{user['id']}", password="quite another one").status_code == 200
    assert vera.get(f"{API}/session").status_code == 401
    signed_in(app, "vera", "quite another one")


def test_users_are_listed_in_pages_and_filtered(admin: TestClient) -> None:
    for n in range(5):
        create_user(admin, f"u{n}", "viewer" if n % 2 else "operator")
    first = made(admin.get(f"{API}/users", params={"limit": 4}))
    rest = made(admin.get(f"{API}/users", params={"limit": 4, "cursor": first["next_cursor"]}))
    assert [u["name"] for u in first["items"] + rest["items"]] == ["admin", "u0", "u1", "u2", "u3", "u4"]

    def names(**query: Any) -> list[str]:
        return [u["name"] for u in made(admin.get(f"{API}/users", params=query))["items"]]

    assert names(role="viewer") == ["u1", "u3"]
    assert names(name="u", sort="-name") == ["u4", "u3", "u2", "u1", "u0"]
    assert names(disabled=True) == []
    assert names(name="%") == []


# --- nobody exceeds themselves ---


@sqlite_only
def test_who_keeps_users_makes_no_admin(clerk: TestClient, admin: TestClient) -> None:
    for role in ("admin", "operator", "viewer"):
        answer = create_user(clerk, f"puppet-{role}", role)
        assert (answer.status_code, problem(answer)) == (403, "beyond-own-rights")
        assert answer.json()["beyond"]
    assert create_user(clerk, "helper", "clerk").status_code == 201


@sqlite_only
def test_nobody_raises_themselves(clerk: TestClient) -> None:
    own = me(clerk)["user_id"]
    assert problem(change(clerk, f"users/{own}", role="admin")) == "beyond-own-rights"
    wider = {"permissions": [*me(clerk)["permissions"], "config:write"]}
    answer = clerk.put(f"{API}/roles/clerk", json=wider, headers={"If-Match": "*"})
    assert problem(answer) == "beyond-own-rights"
    assert me(clerk)["role"] == "clerk"


@sqlite_only
def test_nobody_takes_over_who_may_more(clerk: TestClient, admin: TestClient, app: FastAPI) -> None:
    boss = me(admin)["user_id"]
    token = made(admin.post(f"{API}/tokens", json={"name": "t"}))
    for answer in (
        change(clerk, f"users/{boss}", password="the clerk's choice"),
        change(clerk, f"users/{boss}", disabled=True),
        change(clerk, f"users/{boss}", role="clerk"),
        clerk.delete(f"{API}/users/{boss}"),
        clerk.post(f"{API}/tokens", params={"user_id": boss}, json={"name": "t", "permissions": []}),
        clerk.delete(f"{API}/tokens/{token['id']}"),
    ):
        assert (answer.status_code, problem(answer)) == (403, "beyond-own-rights")
    assert me(bearer(app, token["token"]))["role"] == "admin"


@sqlite_only
def test_a_role_has_no_more_than_who_makes_it(clerk: TestClient, admin: TestClient) -> None:
    def role(name: str, *permissions: str) -> Any:
        return clerk.post(f"{API}/roles", json={"name": name, "permissions": permissions})

    assert role("readers", "jobs:read").status_code == 201
    assert problem(role("writers", "jobs:read", "jobs:write")) == "beyond-own-rights"
    made(admin.post(f"{API}/roles", json={"name": "mighty", "permissions": ["config:write"]}))
    narrower = clerk.put(f"{API}/roles/mighty", json={"permissions": []}, headers={"If-Match": "*"})
    assert problem(narrower) == problem(clerk.delete(f"{API}/roles/mighty")) == "beyond-own-rights"


@sqlite_only
def test_a_narrow_token_does_not_act_with_its_owners_rights(admin: TestClient, app: FastAPI) -> None:
    narrow = made(
        admin.post(f"{API}/tokens", json={"name": "t", "permissions": ["users:write", "users:read"]})
    )
    robot = bearer(app, narrow["token"])
    assert problem(create_user(robot, "puppet", "admin")) == "beyond-own-rights"
    wider = robot.post(f"{API}/tokens", json={"name": "t", "permissions": ["config:write"]})
    assert problem(wider) == "beyond-own-rights"
    same = made(robot.post(f"{API}/tokens", json={"name": "t"}))
    assert same["permissions"] == ["users:read", "users:write"]


# --- the last admin ---


def test_somebody_stays_in_charge(admin: TestClient, app: FastAPI) -> None:
    own = f"users/{me(admin)['user_id']}"
    for answer in (
        change(admin, own, role="viewer"),
        change(admin, own, disabled=True),
        admin.delete(f"{API}/{own}"),
    ):
        assert (answer.status_code, problem(answer)) == (409, "last-admin")
    second = made(create_user(admin, "second", "admin"))
    assert change(admin, f"users/{second['id']}", disabled=True).status_code == 200
    # One who is disabled is in charge of nothing.
    assert problem(change(admin, own, role="viewer")) == "last-admin"
    assert change(admin, f"users/{second['id']}", disabled=False).status_code == 200
    assert change(admin, own, role="viewer").status_code == 200
    assert admin.get(f"{API}/users").status_code == 403


def test_two_admins_that_demote_each_other_do_not_both_succeed(
    admin: TestClient, app: FastAPI, settings: ManagerSettings
) -> None:
    second = made(create_user(admin, "second", "admin"))
    with people.replica(settings) as other:
        there = signed_in(other, "second")
        work: list[tuple[httpx.Client, str]] = [
            (admin, f"users/{second['id']}"),
            (there, f"users/{me(admin)['user_id']}"),
        ]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: change(each[0], each[1], role="viewer"), work))
    with database_of(app).read() as session:
        assert len(list(session.scalars(select(User).where(User.role == "admin")))) >= 1


# --- roles ---


def test_a_role_change_holds_from_the_next_request_on_all_replicas(
    admin: TestClient, app: FastAPI, settings: ManagerSettings
) -> None:
    made(admin.post(f"{API}/roles", json={"name": "auditor", "permissions": ["audit:read"]}))
    made(create_user(admin, "ada", "auditor"))
    with people.replica(settings) as other:
        token = made(signed_in(app, "ada").post(f"{API}/tokens", json={"name": "t"}))["token"]
        session, robot = signed_in(other, "ada"), bearer(other, token)
        for permissions, status in (
            ([], 403),
            (["audit:read"], 200),
            (["users:read"], 403),
            (["audit:read"], 200),
        ):
            answer = admin.put(
                f"{API}/roles/auditor", json={"permissions": permissions}, headers={"If-Match": "*"}
            )
            assert answer.status_code == 200
            assert session.get(f"{API}/audit").status_code == robot.get(f"{API}/audit").status_code == status
        # What the role has won since is not the token's.
        admin.put(f"{API}/roles/auditor", json={"permissions": ["users:read"]}, headers={"If-Match": "*"})
        assert session.get(f"{API}/users").status_code == 200
        assert robot.get(f"{API}/users").status_code == 403


@sqlite_only
def test_roles_that_came_with_the_manager_stay(admin: TestClient) -> None:
    for name in BUILTIN_ROLES:
        changed = admin.put(f"{API}/roles/{name}", json={"permissions": []}, headers={"If-Match": "*"})
        assert problem(changed) == problem(admin.delete(f"{API}/roles/{name}")) == "builtin-role"
    assert problem(admin.post(f"{API}/roles", json={"name": "admin", "permissions": []})) == "exists"


def test_a_role_in_use_stays(admin: TestClient) -> None:
    made(admin.post(f"{API}/roles", json={"name": "auditor", "permissions": ["audit:read"]}))
    ada = made(create_user(admin, "ada", "auditor"))
    assert made(admin.get(f"{API}/roles/auditor"))["users"] == 1
    answer = admin.delete(f"{API}/roles/auditor")
    assert (answer.status_code, problem(answer), answer.json()["users"]) == (409, "in-use", 1)
    change(admin, f"users/{ada['id']}", role="viewer")
    assert admin.delete(f"{API}/roles/auditor").status_code == 204
    assert admin.get(f"{API}/roles/auditor").status_code == 404


@sqlite_only
def test_a_role_has_a_version(admin: TestClient) -> None:
    made(admin.post(f"{API}/roles", json={"name": "auditor", "permissions": ["audit:read", "audit:read"]}))
    found = admin.get(f"{API}/roles/auditor")
    assert (found.headers["etag"], found.json()["permissions"]) == ('"1"', ["audit:read"])
    body = {"permissions": [], "description": "None"}
    answer = admin.put(f"{API}/roles/auditor", json=body, headers={"If-Match": '"1"'})
    assert (answer.headers["etag"], answer.json()["description"]) == ('"2"', "None")
    assert admin.put(f"{API}/roles/auditor", json=body, headers={"If-Match": '"1"'}).status_code == 412
    assert admin.put(f"{API}/roles/auditor", json=body).status_code == 428


@sqlite_only
def test_all_permissions_are_listed_with_what_they_mean(admin: TestClient) -> None:
    found = made(admin.get(f"{API}/roles/permissions"))
    assert {p["name"] for p in found} == EVERYTHING
    assert all(p["description"] for p in found)
    listed = made(admin.get(f"{API}/roles"))["items"]
    assert {r["name"]: r["users"] for r in listed} == {"admin": 1, "operator": 0, "viewer": 0}


@sqlite_only
def test_an_unknown_role_is_refused(admin: TestClient) -> None:
    assert problem(create_user(admin, "vera", "nothing")) == "unknown-role"


@sqlite_only
def test_a_permission_that_this_version_does_not_know_counts_for_nothing(
    admin: TestClient, app: FastAPI
) -> None:
    with database_of(app).write() as session:
        role = session.get_one(Role, "viewer")
        role.permissions = [*role.permissions, "moon:land"]
    create_user(admin, "vera", "viewer")
    assert "moon:land" not in me(signed_in(app, "vera"))["permissions"]


# --- tokens ---


def test_a_token_from_its_start_to_its_end(admin: TestClient, app: FastAPI) -> None:
    answer = admin.post(f"{API}/tokens", json={"name": "build", "permissions": ["jobs:read"]})
    found = made(answer)
    secret = found.pop("token")
    assert answer.headers["location"] == f"{API}/tokens/{found['id']}"
    assert secret.startswith(found["prefix"])
    assert made(admin.get(f"{API}/tokens/{found['id']}")) == found
    assert made(admin.get(f"{API}/tokens"))["items"] == [found]
    robot = bearer(app, secret)
    assert (me(robot)["permissions"], me(robot)["via"], me(robot)["csrf"]) == (["jobs:read"], "token", None)
    used = made(admin.get(f"{API}/tokens/{found['id']}"))
    assert (used["last_used_from"], found["last_used_at"]) == ("192.0.2.1", None)
    assert used["last_used_at"]
    assert admin.delete(f"{API}/tokens/{found['id']}").status_code == 204
    assert robot.get(f"{API}/session").status_code == 401
    assert made(admin.get(f"{API}/tokens/{found['id']}"))["revoked_at"]
    assert made(admin.get(f"{API}/tokens", params={"active": True}))["items"] == []
    assert len(made(admin.get(f"{API}/tokens", params={"active": False}))["items"]) == 1
    with database_of(app).read() as session:
        rows = session.scalars(select(Audit).where(Audit.resource_id == found["id"]).order_by(Audit.id))
        assert [r.action for r in rows] == ["token.create", "token.revoke"]


def test_a_revoked_token_is_worth_nothing_on_any_replica(
    admin: TestClient, app: FastAPI, settings: ManagerSettings
) -> None:
    found = made(admin.post(f"{API}/tokens", json={"name": "t"}))
    with people.replica(settings) as other:
        there = bearer(other, found["token"])
        assert there.get(f"{API}/users").status_code == 200
        admin.delete(f"{API}/tokens/{found['id']}")
        assert there.get(f"{API}/users").status_code == 401


def test_a_token_expires(admin: TestClient, app: FastAPI) -> None:
    found = made(admin.post(f"{API}/tokens", json={"name": "t", "expires_in": 3600}))
    robot = bearer(app, found["token"])
    assert robot.get(f"{API}/session").status_code == 200
    with database_of(app).write() as session:
        session.execute(update(Token).values(expires_at=now()))
    answer = robot.get(f"{API}/session")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert made(admin.get(f"{API}/tokens", params={"active": True}))["items"] == []


def days(token: dict[str, Any]) -> float:
    """For which it is good."""
    end, start = (datetime.fromisoformat(token[name]) for name in ("expires_at", "created_at"))
    return (end - start) / timedelta(days=1)


def test_every_token_ends(admin: TestClient) -> None:
    assert days(made(admin.post(f"{API}/tokens", json={"name": "t"}))) == pytest.approx(90, abs=0.01)
    year = made(admin.post(f"{API}/tokens", json={"name": "t", "expires_in": 365 * 86400}))
    assert days(year) == pytest.approx(365, abs=0.01)
    answer = admin.post(f"{API}/tokens", json={"name": "t", "expires_in": 366 * 86400})
    assert (answer.status_code, problem(answer)) == (422, "token-lives-too-long")
    assert "365 days" in answer.json()["detail"]
    assert admin.post(f"{API}/tokens", json={"name": "t", "expires_in": 1e308}).status_code == 422


@sqlite_only
def test_how_long_tokens_are_good_for_is_a_setting(settings: ManagerSettings) -> None:
    limited = settings.model_copy(update={"tokens": Tokens(default=1, longest=2)})
    with people.replica(limited) as app:
        admin = signed_in(app, "admin", "correct horse battery")
        assert days(made(admin.post(f"{API}/tokens", json={"name": "t"}))) == pytest.approx(1, abs=0.01)
        asked = {"name": "t", "expires_in": 3 * 86400}
        assert problem(admin.post(f"{API}/tokens", json=asked)) == "token-lives-too-long"
    with pytest.raises(ValidationError, match="exceeds longest"):
        Tokens(default=3, longest=2)


def test_a_token_from_before_every_token_had_an_end_goes_on(admin: TestClient, app: FastAPI) -> None:
    """Programs do not stop on the day of an upgrade; the list says which ones never end."""
    found = made(admin.post(f"{API}/tokens", json={"name": "t"}))
    with database_of(app).write() as session:
        session.execute(update(Token).values(expires_at=None))
    robot = bearer(app, found["token"])
    assert made(robot.get(f"{API}/tokens"))["items"][0]["expires_at"] is None
    child = made(robot.post(f"{API}/tokens", json={"name": "child"}))
    assert days(child) == pytest.approx(90, abs=0.01)


@sqlite_only
def test_a_token_does_not_outlive_the_one_that_made_it(admin: TestClient, app: FastAPI) -> None:
    parent = made(admin.post(f"{API}/tokens", json={"name": "t", "expires_in": 3600}))
    robot = bearer(app, parent["token"])
    child = made(robot.post(f"{API}/tokens", json={"name": "t"}))
    assert child["expires_at"] == parent["expires_at"]
    assert problem(robot.post(f"{API}/tokens", json={"name": "t", "expires_in": 7200})) == "beyond-own-rights"
    assert robot.post(f"{API}/tokens", json={"name": "t", "expires_in": 60}).status_code == 201


@sqlite_only
def test_tokens_of_others(admin: TestClient, clerk: TestClient, app: FastAPI) -> None:
    people.user(database_of(app), "vera", "viewer")
    vera = signed_in(app, "vera")
    own = made(vera.post(f"{API}/tokens", json={"name": "t"}))
    boss = me(admin)["user_id"]
    # A viewer sees and makes only their own.
    for answer in (
        vera.get(f"{API}/tokens", params={"user_id": boss}),
        vera.get(f"{API}/tokens", params={"user_id": "all"}),
        vera.post(f"{API}/tokens", params={"user_id": boss}, json={"name": "t"}),
    ):
        assert answer.status_code == 403
    hers = made(admin.post(f"{API}/tokens", json={"name": "t"}))
    assert vera.get(f"{API}/tokens/{hers['id']}").status_code == 404
    assert vera.delete(f"{API}/tokens/{hers['id']}").status_code == 404
    # Who may keep users sees all, and makes and revokes those of users with no more rights.
    assert [t["user"] for t in made(clerk.get(f"{API}/tokens", params={"user_id": "all"}))["items"]] == [
        "admin",
        "vera",
    ]
    assert clerk.delete(f"{API}/tokens/{own['id']}").status_code == 403
    assert admin.delete(f"{API}/tokens/{own['id']}").status_code == 204
    for_vera = admin.post(
        f"{API}/tokens", params={"user_id": own["user_id"]}, json={"name": "t", "permissions": ["jobs:read"]}
    )
    assert made(for_vera)["user"] == "vera"
    beyond = admin.post(
        f"{API}/tokens", params={"user_id": own["user_id"]}, json={"name": "t", "permissions": ["users:read"]}
    )
    assert problem(beyond) == "beyond-owners-rights"


def test_tokens_are_kept_as_hashes(admin: TestClient, app: FastAPI) -> None:
    token = made(admin.post(f"{API}/tokens", json={"name": "t"}))["token"]
    with database_of(app).read() as session:
        row = session.scalars(select(Token)).one()
    assert token not in (row.hash, row.prefix)
    assert len(row.prefix) == 12


def test_a_tokens_use_is_written_down_once_a_minute(admin: TestClient, app: FastAPI) -> None:
    token = made(admin.post(f"{API}/tokens", json={"name": "t"}))["token"]

    def used() -> tuple[Any, str]:
        with database_of(app).read() as session:
            row = session.scalars(select(Token)).one()
            return row.last_used_at, row.last_used_from

    bearer(app, token).get(f"{API}/session")
    first = used()
    elsewhere = browser(app, "198.51.100.1", headers={"Authorization": f"Bearer {token}"})
    elsewhere.get(f"{API}/session")
    assert used() == first
    with database_of(app).write() as session:
        session.execute(update(Token).values(last_used_at=now() - timedelta(minutes=1)))
    elsewhere.get(f"{API}/session")
    assert used()[0] > first[0] - timedelta(minutes=1)
    assert used()[1] == "198.51.100.1"


@sqlite_only
def test_a_token_signs_nobody_out(admin: TestClient, app: FastAPI) -> None:
    token = made(admin.post(f"{API}/tokens", json={"name": "t"}))["token"]
    assert problem(bearer(app, token).delete(f"{API}/session")) == "not-a-session"
    with database_of(app).read() as session:
        assert len(list(session.scalars(select(SignIn)))) == 1


# --- what the manager does on a user's behalf ---


def test_what_a_user_may_now(admin: TestClient, app: FastAPI) -> None:
    user = made(create_user(admin, "vera", "viewer"))["id"]
    database = database_of(app)
    with database.read() as session:
        found = rights.of_user(session, user, "schedule")
    assert found is not None
    assert (found.name, found.via, found.permissions) == ("vera", "schedule", BUILTIN_ROLES["viewer"][1])
    change(admin, f"users/{user}", disabled=True)
    with database.read() as session:
        assert rights.of_user(session, user, "schedule") is None
        assert rights.of_user(session, "gone", "schedule") is None


# --- audit ---


def test_the_audit_is_filtered_and_paged(admin: TestClient, app: FastAPI) -> None:
    user = made(create_user(admin, "vera", "viewer"))
    change(admin, f"users/{user['id']}", role="operator")
    admin.delete(f"{API}/users/{user['id']}")
    vera_gone = now().isoformat()

    def actions(**query: Any) -> list[str]:
        return [e["action"] for e in made(admin.get(f"{API}/audit", params=query))["items"]]

    whole = ["user.delete", "user.change", "user.create"]
    assert actions(resource_type="user", resource_id=user["id"]) == whole
    assert actions(action="user.*", resource_id=user["id"]) == whole
    assert actions(action="user.change") == ["user.change"]
    assert actions(actor="admin", action="user.*") == whole
    assert actions(actor=me(admin)["user_id"], sort="at", action="user.*") == whole[::-1]
    assert actions(actor="vera") == []
    assert actions(since=vera_gone) == []
    assert actions(until=vera_gone, resource_id=user["id"]) == whole
    assert actions(outcome="refused") == []
    first = made(admin.get(f"{API}/audit", params={"limit": 2, "resource_id": user["id"]}))
    more = {"limit": 2, "resource_id": user["id"], "cursor": first["next_cursor"]}
    assert [e["action"] for e in made(admin.get(f"{API}/audit", params=more))["items"]] == ["user.create"]
    entry = first["items"][0]
    assert (entry["actor"], entry["via"], entry["address"]) == ("admin", "session", "192.0.2.1")
    assert entry["request_id"]
