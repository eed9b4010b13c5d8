"""Every option that there is, on every surface: it is taken, it arrives, and what does not fit is refused at once."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr
from sqlalchemy import delete
from typer.testing import CliRunner

import dragonfly_ray as d
from dragonfly_ray import api
from dragonfly_ray import messages as m
from dragonfly_ray.cli import backend
from dragonfly_ray.cli.app import app as commands
from dragonfly_ray.config import Settings
from dragonfly_ray.distribution import Distribution, Progress
from dragonfly_ray.errors import (
    DeadlineError,
    DistributionFailedError,
    DragonflyError,
    InvalidRequestError,
    NodeLostError,
)
from dragonfly_ray.model import Credentials, Source
from dragonfly_ray.options import (
    DistributeOptions,
    JobOptions,
    PreheatOptions,
    RemoteDistributeOptions,
    RemoteSourceOptions,
    SourceOptions,
    SubmitOptions,
    WaitOptions,
    options_of,
)
from dragonfly_ray.outcome import Outcome
from dragonfly_ray.policy import UrlPolicy
from dragonfly_ray.remote import Client
from dragonfly_ray.serve.app import create_app
from dragonfly_ray.serve.database import Database
from dragonfly_ray.serve.database.tables import IdempotencyKey
from dragonfly_ray.serve.database.tables import Job as JobRow
from dragonfly_ray.serve.jobs.orders import job_options
from dragonfly_ray.serve.schemas.jobs import DistributionCreate, Job, PreheatCreate
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.serve.testing import FakeCluster
from dragonfly_ray.targets import Member
from tests.manager.conftest import PASSWORD, token_of
from tests.manager.remote.conftest import served
from tests.waiting import until

URL = "https://models.example.org/set/?v=1"
PATH = "/nfs/set"
DIGEST = f"sha256:{'0' * 64}"


@dataclass
class Told:
    """What arrived where the work is done."""

    source: Source
    dest: str
    digest: str
    link: bool
    credentials: Credentials
    id: str
    detached: bool = True
    name: str = ""


class Sample(NamedTuple):
    given: Any
    arrived: Callable[[Told], object]
    """As it was given."""
    flags: tuple[str, ...]
    bad: Any
    bad_flags: tuple[str, ...] = ()
    """Empty: the command line can say nothing bad."""
    url: str = URL


SAMPLES: Mapping[str, Sample] = {
    "dest": Sample("/data/x", lambda t: t.dest, ("-d", "/data/x"), "relative/x", ("--dest", "relative/x")),
    "link": Sample(False, lambda t: t.link, ("--no-link",), "maybe"),
    "digest": Sample(
        DIGEST,
        lambda t: t.digest,
        ("--digest", DIGEST),
        "md5:12",
        ("--digest", "md5:12"),
        URL.replace("/?", "?"),
    ),
    "include": Sample(
        ["*.bin", "*.json"],
        lambda t: list(t.source.include),
        ("--include", "*.bin", "--include", "*.json"),
        7,
    ),
    "exclude": Sample(["*.tmp"], lambda t: list(t.source.exclude), ("--exclude", "*.tmp"), [7]),
    "tag": Sample("v1", lambda t: t.source.tag, ("--tag", "v1"), 7),
    "application": Sample("train", lambda t: t.source.application, ("--application", "train"), 7),
    "filtered_query_params": Sample(
        ["v"], lambda t: list(t.source.filtered_query_params), ("--filter-query-param", "v"), {"v": 1}
    ),
    # Chosen where there are links: a web server has none.
    "links": Sample(
        "keep", lambda t: t.source.links, ("--links", "keep"), "some", ("--links", "some"), "sftp://h/set/"
    ),
    "storage_options": Sample(
        {"anon": True},
        lambda t: t.credentials.storage_options,
        ("-o", "anon=true"),
        "anon",
        ("--storage-option", "anon"),
    ),
    "headers": Sample(
        {"X-A": "b"}, lambda t: t.credentials.headers, ("-H", "X-A: b"), {"X-A": 7}, ("--header", "X-A")
    ),
    "shared": Sample(True, lambda t: t.source.node == "", ("--shared",), "yes", (), PATH),
    "detached": Sample(True, lambda t: t.detached, ("--detach",), 1),
    "id": Sample("mine-1", lambda t: t.id, ("--id", "mine-1"), 7),
    "secret": Sample(
        "store",
        lambda t: {"hunter2": "store"}.get(t.credentials.headers.get("X-Secret", "")),
        ("--secret", "store"),
        "unknown",
        ("--secret", "unknown"),
    ),
    "name": Sample("weights", lambda t: t.name, ("--name", "weights"), 7),
}


# --- surfaces -----------------------------------------------------------------------------------


@dataclass
class Submissions:
    """In place of the Ray cluster: what would be sent to its schedulers."""

    told: list[Told] = field(default_factory=list)
    outcome: Outcome | None = None
    """Of its one node; None: it never ends."""

    def __call__(
        self,
        id: str,
        specs: list[m.DistributionSpec],
        credentials: Credentials,
        settings: Settings,
        names: object,
    ) -> Submissions:
        (spec,) = specs
        self.id = id
        self.told.append(Told(spec.source, spec.dest, spec.digest, spec.link, credentials, id, spec.detached))
        return self

    def start(self) -> None: ...

    def cancel(self, kind: str = "", message: str = "") -> None: ...

    def close(self) -> None: ...

    def wait(self, timeout: float | None = None) -> bool:
        return self.outcome is not None

    def progress(self) -> Progress:
        return Progress.from_views([], {}, 0.0)

    def result(self, timeout: float | None = None) -> Distribution:
        assert self.outcome is not None
        return Distribution(self.id, (URL,), (self.outcome,), 1.0, 1)


@pytest.fixture
def submissions(monkeypatch: pytest.MonkeyPatch) -> Submissions:
    found = Submissions()
    monkeypatch.setattr(api, "Submission", found)
    monkeypatch.setattr(api, "_cluster", lambda: (Settings(), [Member("n1", "10.0.0.1")]))
    monkeypatch.setattr(api, "connect", lambda: None)
    monkeypatch.setattr(api, "current_node", lambda: "n0")
    return found


class Managed(NamedTuple):
    client: Client
    cluster: FakeCluster
    database: Database


@pytest.fixture(scope="module")
def managed(sqlite_schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    """A manager behind a socket; what it is asked for ends at once."""
    folder = tmp_path_factory.mktemp("manager")
    shutil.copy(sqlite_schema, folder / "manager.db")
    cluster = FakeCluster(2)
    cluster.at_once = True
    settings = ManagerSettings(
        state_dir=folder / "state",
        database_url=f"sqlite:///{folder / 'manager.db'}",
        DRAGONFLY_ADMIN_PASSWORD=SecretStr(PASSWORD),
        dest_roots=("/data",),
        urls=UrlPolicy(schemes=("https", "sftp"), ambient_credentials=("sftp",)),
    )
    app = create_app(settings, cluster)
    with served(app) as address, pytest.MonkeyPatch.context() as patch:
        database = app.state.manager.database
        token = token_of(database, "operator")
        patch.setenv("DRAGONFLY_TOKEN", token)
        with d.connect(address, token) as client:
            secret = {"name": "store", "hosts": ["models.example.org"], "headers": {"X-Secret": "hunter2"}}
            client.http.post("/secrets", secret)
            yield Managed(client, cluster, database)


Surface = Callable[[str, dict[str, Any]], Told]


def _by_api(request: pytest.FixtureRequest) -> Surface:
    submissions: Submissions = request.getfixturevalue("submissions")

    def submit(url: str, options: dict[str, Any]) -> Told:
        api.submit(url, **options)
        return submissions.told.pop()

    return submit


def _line(*arguments: str) -> None:
    """Raises what the command would say, with an exit code."""
    try:
        done = CliRunner().invoke(commands, arguments)
    finally:
        backend.choose(None, None)
    if isinstance(done.exception, DragonflyError):
        raise done.exception
    if done.exit_code == 2:  # by typer itself
        raise InvalidRequestError(" ".join(done.stderr.split()))
    assert done.exit_code == 0, (done.stdout, done.exception)


def _flags(options: dict[str, Any]) -> list[str]:
    return [
        flag
        for name, value in options.items()
        for flag in (SAMPLES[name].flags if value == SAMPLES[name].given else SAMPLES[name].bad_flags)
    ]


def _by_command(request: pytest.FixtureRequest) -> Surface:
    submissions: Submissions = request.getfixturevalue("submissions")
    submissions.outcome = Outcome("n1", "done", node="n1", url=URL)

    def submit(url: str, options: dict[str, Any]) -> Told:
        _line("distribute", url, *_flags(options))
        return submissions.told.pop()

    return submit


def _managed(
    request: pytest.FixtureRequest, send: Callable[[Client, str, dict[str, Any]], object]
) -> Surface:
    client, cluster, database = request.getfixturevalue("managed")

    def submit(url: str, options: dict[str, Any]) -> Told:
        before = set(cluster.orders)
        send(client, url, options)
        until(lambda: cluster.orders.keys() - before)
        (id,) = cluster.orders.keys() - before
        with database.write() as session:
            keys = (
                delete(IdempotencyKey).where(IdempotencyKey.resource_id == id).returning(IdempotencyKey.key)
            )
            key = session.scalar(keys) or ""
        order, (job,) = cluster.orders[id], client.jobs(most=1)
        (source,) = order.sources
        return Told(
            source, order.dest, order.digest, order.link, cluster.credentials[id], key, name=job["name"]
        )

    return submit


def _by_client(request: pytest.FixtureRequest) -> Surface:
    return _managed(request, lambda client, url, options: client.submit(url, **options))


def _by_client_preheat(request: pytest.FixtureRequest) -> Surface:
    return _managed(request, lambda client, url, options: client.preheat(url, "all", **options))


def _by_rest(request: pytest.FixtureRequest) -> Surface:
    def send(client: Client, url: str, options: dict[str, Any]) -> None:
        body = {"urls": [url], "nodes": "all"} | {n: v for n, v in options.items() if n != "id"}
        client.http.post("/distributions", body, key=str(options.get("id", "k")))

    return _managed(request, send)


def _by_managed_command(request: pytest.FixtureRequest, *command: str) -> Surface:
    def send(client: Client, url: str, options: dict[str, Any]) -> None:
        _line("--manager", client.http.url, *(command or ("distribute",)), url, *_flags(options))

    return _managed(request, send)


def _by_preheat_command(request: pytest.FixtureRequest) -> Surface:
    return _by_managed_command(request, "preheat", "-n", "all")


SURFACES: Mapping[str, tuple[Callable[[pytest.FixtureRequest], Surface], type]] = {
    "submit": (_by_api, SubmitOptions),
    "dragonfly distribute": (_by_command, SubmitOptions),
    "Client.submit": (_by_client, JobOptions),
    "Client.preheat": (_by_client_preheat, PreheatOptions),
    "REST": (_by_rest, JobOptions),
    "dragonfly --manager distribute": (_by_managed_command, JobOptions),
    "dragonfly --manager preheat": (_by_preheat_command, PreheatOptions),
}
CASES = [(surface, name) for surface, (_, definition) in SURFACES.items() for name in options_of(definition)]
REFUSED = [
    (surface, name)
    for surface, name in CASES
    # A command line has text only, and often any is good; the id is a header of REST.
    if (SAMPLES[name].bad_flags or not surface.startswith("dragonfly")) and (surface, name) != ("REST", "id")
]


@pytest.mark.parametrize(("surface", "name"), CASES)
def test_an_option_is_taken_and_takes_effect(request: pytest.FixtureRequest, surface: str, name: str) -> None:
    sample = SAMPLES[name]
    told = SURFACES[surface][0](request)(sample.url, {name: sample.given})
    assert sample.arrived(told) == sample.given


@pytest.mark.parametrize("surface", SURFACES)
def test_what_is_left_out_has_no_effect(request: pytest.FixtureRequest, surface: str) -> None:
    """So that the test above fails where an option is passed over."""
    send, definition = SURFACES[surface]
    told = send(request)(PATH if surface == "submit" else URL, {})
    never = {"shared", "detached"} if "distribute" in surface else set()  # by the call that they make
    for name in options_of(definition).keys() - never:
        assert SAMPLES[name].arrived(told) != SAMPLES[name].given, name


@pytest.mark.parametrize(("surface", "name"), REFUSED)
def test_what_does_not_fit_is_refused_before_any_work(
    request: pytest.FixtureRequest, surface: str, name: str
) -> None:
    sample = SAMPLES[name]
    send = SURFACES[surface][0](request)
    managed = "managed" in request.fixturenames
    jobs = _jobs(request) if managed else []
    with pytest.raises(InvalidRequestError) as caught:
        send(sample.url, {name: sample.bad})
    said = str(caught.value)
    assert name in said or sample.bad_flags[0].lstrip("-") in said, said
    assert "\n" not in said
    assert "hunter2" not in said
    assert (_jobs(request) if managed else request.getfixturevalue("submissions").told) == jobs


def _jobs(request: pytest.FixtureRequest) -> list[str]:
    managed: Managed = request.getfixturevalue("managed")
    return [job["id"] for job in managed.client.jobs()]


# --- whoever waits ------------------------------------------------------------------------------

FAILED = Outcome("n1", "failed", node="n1", url=URL, error=NodeLostError("lost"))


@pytest.fixture(params=["distribute", "Client.distribute"])
def distribute(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Distribution]:
    """Of something that fails on its only node, or never ends."""
    submissions: Submissions = request.getfixturevalue("submissions")
    submissions.outcome = FAILED
    if request.param == "distribute":
        return api.distribute
    client: Client = request.getfixturevalue("managed").client
    monkeypatch.setattr(client, "submit", lambda url, nodes, **options: api.submit(url, nodes))
    return client.distribute


def test_who_waits_may_want_failures_returned(distribute: Callable[..., Distribution]) -> None:
    assert distribute(URL, on_failure="return").failures == (FAILED,)
    with pytest.raises(DistributionFailedError):
        distribute(URL)


def test_who_waits_hears_of_progress(distribute: Callable[..., Distribution]) -> None:
    heard: list[Progress] = []
    distribute(URL, progress=heard.append, on_failure="return")
    assert heard


def test_who_waits_does_so_no_longer_than_it_wants(
    distribute: Callable[..., Distribution], submissions: Submissions
) -> None:
    submissions.outcome = None
    with pytest.raises(DeadlineError, match="after 0 s"):
        distribute(URL, timeout=0)


@pytest.mark.parametrize(
    ("name", "bad"),
    [("timeout", -1), ("timeout", float("nan")), ("timeout", "5"), ("on_failure", "ignore"), ("progress", 7)],
)
def test_what_does_not_fit_who_waits_is_refused(
    distribute: Callable[..., Distribution], submissions: Submissions, name: str, bad: object
) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{name}\b.*$"):
        distribute(URL, **{name: bad})
    assert not submissions.told


def test_these_are_all_that_there_are() -> None:
    assert options_of(WaitOptions).keys() == {"timeout", "on_failure", "progress"}
    for definition in (DistributeOptions, RemoteDistributeOptions):
        assert options_of(definition).keys() <= SAMPLES.keys() | options_of(WaitOptions).keys()


# --- the definition itself ----------------------------------------------------------------------

CALLS: list[tuple[Callable[..., Any], type]] = [
    (api.distribute, DistributeOptions),
    (api.submit, SubmitOptions),
    (api.fetch, DistributeOptions),
    (api.open, SubmitOptions),
    (api.load, SubmitOptions),
    (api.where, SourceOptions),
    (api.pin, SourceOptions),
    (api.unpin, SourceOptions),
    (api.evict, SourceOptions),
    (Client.submit, JobOptions),
    (Client.distribute, RemoteDistributeOptions),
    (Client.preheat, PreheatOptions),
    (Client.where, RemoteSourceOptions),
    (Client.pin, RemoteSourceOptions),
    (Client.unpin, RemoteSourceOptions),
    (Client.evict, RemoteSourceOptions),
]


@pytest.mark.parametrize(("call", "definition"), CALLS, ids=lambda each: getattr(each, "__qualname__", ""))
def test_every_call_shows_its_options_and_refuses_others(call: Callable[..., Any], definition: type) -> None:
    shown = inspect.signature(call).parameters
    assert not [p for p in shown.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    help = " ".join(pydoc.plain(pydoc.render_doc(call)).split())
    assert "{options}" not in help
    for name, (hint, option) in options_of(definition).items():
        assert shown[name] == inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hint
        )
        assert "Args:" not in help or f"{name}: {option.doc}" in help
    with pytest.raises(
        TypeError, match=rf"{call.__name__}\(\) got an unexpected keyword argument 'destination'"
    ):
        call("self", URL, destination="/x")


@pytest.mark.parametrize(
    ("body", "definition"), [(DistributionCreate, JobOptions), (PreheatCreate, PreheatOptions)]
)
def test_bodies_and_jobs_of_the_rest_api_have_them_all(
    body: type[DistributionCreate | PreheatCreate], definition: type
) -> None:
    names = options_of(definition).keys() - {"id"}  # a header there
    assert body.model_fields.keys() == names | {"urls", "nodes"}
    assert names <= Job.model_fields.keys()
    for name in names:
        assert str(body.model_fields[name].description).startswith(options_of(definition)[name][1].brief)


def test_a_job_of_an_earlier_manager_was_asked_with_what_holds_by_default() -> None:
    assert job_options(JobRow(options={"tag": "v1"})) == {
        "digest": None,
        "link": True,
        "include": [],
        "exclude": [],
        "tag": "v1",
        "application": "",
        "filtered_query_params": [],
        "links": "refuse",
    }


def test_what_only_a_manager_or_only_ray_knows_is_refused_where_it_is_not_known(managed: Managed) -> None:
    for name in options_of(JobOptions).keys() - options_of(SubmitOptions):
        with pytest.raises(
            InvalidRequestError, match=f"^--{name}: needs --manager; (only|without) a manager"
        ):
            _line("distribute", URL, *SAMPLES[name].flags)
    for name in options_of(SubmitOptions).keys() - options_of(JobOptions) - {"detached"}:
        with pytest.raises(InvalidRequestError, match=r"^--[a-z-]+: not available with --manager"):
            _line("--manager", managed.client.http.url, "distribute", URL, *SAMPLES[name].flags)


def test_calls_can_be_sent_to_workers() -> None:
    assert pickle.loads(pickle.dumps(api.distribute)) is api.distribute
