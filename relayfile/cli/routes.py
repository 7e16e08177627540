"""`relayfile routes list | get | put | delete`: which workspace each customer of an app has."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.running_system import DATA_DIR, JSON_LINES, REQUEST_ID, ask
from relayfile.cli.shown import as_json, moment
from relayfile.cli.table import table

if TYPE_CHECKING:
    from relayfile.cli.connection import Credentials
    from relayfile.v1.route_pb2 import Route
    from relayfile.v1.route_pb2_grpc import RouteServiceAsyncStub

app = typer.Typer(help="Which workspace each customer of an app has.", no_args_is_help=True)

APP = typer.Argument(metavar="app", help="The app, as RELAYFILE_APPS names it.")
TENANT = typer.Argument(help="The customer, as it stands in the app's deliveries.")
REASON = typer.Option("", "--reason", help="Why, for the record of administrative actions.")


@app.command("list")
def list_routes(
    app_name: str = APP,
    workspace: str = typer.Option("", "--workspace", help="Only routes to this workspace."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """List the routes of an app by tenant."""

    async def work(stub: "RouteServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import route_pb2

        token, found = "", list["Route"]()
        while True:
            request = route_pb2.ListRoutesRequest(
                app=app_name, workspace_id=workspace, page_size=10_000, page_token=token
            )
            page = await stub.ListRoutes(request, metadata=shown)
            found += page.routes
            if not (token := page.next_page_token):
                break
        _show(found, json_lines)

    _run(data_dir, work)


@app.command()
def get(
    app_name: str = APP,
    tenant: str = TENANT,
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Show one route."""

    async def work(stub: "RouteServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import route_pb2

        request = route_pb2.GetRouteRequest(app=app_name, tenant=tenant)
        _show([(await stub.GetRoute(request, metadata=shown)).route], json_lines)

    _run(data_dir, work)


@app.command()
def put(
    app_name: str = APP,
    tenant: str = TENANT,
    workspace: str = typer.Argument(help="The workspace; it must exist, but for --create-workspace."),
    create_workspace: bool = typer.Option(False, "--create-workspace", help="Make the workspace if it is not there."),
    if_revision: int | None = typer.Option(
        None, "--if-revision", min=0, help="Only when the route is at this revision; 0: when there is none."
    ),
    reason: str = REASON,
    request_id: str = REQUEST_ID,
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """Make or change a route. What waits for it as a dead letter UNROUTED is tried again."""

    async def work(stub: "RouteServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import route_pb2

        request = route_pb2.PutRouteRequest(
            app=app_name, tenant=tenant, workspace_id=workspace, reason=reason, request_id=request_id
        )
        if if_revision is not None:
            request.if_revision = if_revision
        if create_workspace:
            await _create_workspace(data_dir, workspace)
        answer = await stub.PutRoute(request, metadata=shown)
        if json_lines:
            print(as_json(answer.route))
            return
        verb = "now goes" if answer.created else "goes"
        replayed = answer.replayed_dead_letter_count
        print(
            f"{app_name} {tenant} {verb} to {answer.route.workspace_id} (revision {answer.route.revision}); "
            f"{replayed} dead letters are tried again"
        )

    _run(data_dir, work)


@app.command()
def delete(
    app_name: str = APP,
    tenant: str = TENANT,
    if_revision: int | None = typer.Option(
        None, "--if-revision", min=1, help="Only when the route is at this revision."
    ),
    reason: str = REASON,
    request_id: str = REQUEST_ID,
    data_dir: Path = DATA_DIR,
) -> None:
    """Remove a route: later deliveries of the tenant become dead letters UNROUTED."""

    async def work(stub: "RouteServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import route_pb2

        request = route_pb2.DeleteRouteRequest(app=app_name, tenant=tenant, reason=reason, request_id=request_id)
        if if_revision is not None:
            request.if_revision = if_revision
        answer = await stub.DeleteRoute(request, metadata=shown)
        print(f"{app_name} {tenant} has no route any more (revision {answer.revision})")

    _run(data_dir, work)


async def _create_workspace(data_dir: Path, workspace: str) -> None:
    from grpc.aio import AioRpcError

    from relayfile.cli.connection import connect, open_channel
    from relayfile.errors import WorkspaceAlreadyExists
    from relayfile.status import from_rpc_error
    from relayfile.v1 import workspace_pb2
    from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub

    connection = connect(data_dir)
    request = workspace_pb2.CreateWorkspaceRequest(workspace_id=workspace)
    async with open_channel(connection.store) as channel:
        try:
            await WorkspaceServiceStub(channel).CreateWorkspace(request, metadata=connection.credentials)
        except AioRpcError as error:
            if not isinstance(from_rpc_error(error), WorkspaceAlreadyExists):
                raise


def _show(routes: "list[Route]", json_lines: bool) -> None:
    if json_lines:
        for route in routes:
            print(as_json(route))
        return
    rows = [
        (route.tenant, route.workspace_id, route.revision, moment(route.modify_time.ToMicroseconds()))
        for route in routes
    ]
    if not rows:
        print("no routes")
        return
    print(table(("TENANT", "WORKSPACE", "REVISION", "CHANGED"), rows))


def _run(data_dir: Path, work: Callable[["RouteServiceAsyncStub", "Credentials"], Awaitable[None]]) -> None:
    from relayfile.v1.route_pb2_grpc import RouteServiceStub

    ask(data_dir, lambda system: system.store, lambda channel, shown: work(RouteServiceStub(channel), shown))
