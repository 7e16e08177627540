"""`relayfile providers`: what the adapters of senders are, and what a payload becomes, without a running system."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.table import table
from relayfile.errors import SettingError
from relayfile.placement import app_of, check_any_workspace_id
from relayfile.settings import IngestSettings, load
from relayfile.settings.definition import parse_duration

if TYPE_CHECKING:
    from relayfile.ingest.providers.adapter import Provider, RequestFacts
    from relayfile.ingest.providers.registry import ProviderRegistry
    from relayfile.v1 import types_pb2

AWAIT_S_MAX = 24 * 3600.0
_KINDS = ("", "upsert", "delete", "patch", "signal")
_JSON_OPTION = typer.Option(False, "--json", help="One JSON document, for machines.")

app = typer.Typer(
    help="Adapters of senders: list them, show one, try a payload, await a handshake.", no_args_is_help=True
)


@app.command("list")
def list_providers(as_json: bool = _JSON_OPTION) -> None:
    """Print the built-in providers and those of RELAYFILE_PROVIDERS_DIR."""
    registry = _registry()
    rows = [
        {
            "name": name,
            "title": provider.definition.title,
            "version": provider.definition.version,
            "proof": _proof(provider),
            "events": len(provider.definition.rules),
            "file": str(registry.files[name]),
        }
        for name, provider in sorted(registry.items())
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    headings = ("NAME", "VERSION", "EVENTS", "TITLE", "PROVEN BY")
    cells = [(row["name"], row["version"], row["events"] or "-", row["title"], row["proof"]) for row in rows]
    print(table(headings, cells))


@app.command()
def show(name: str = typer.Argument(help="The provider."), as_json: bool = _JSON_OPTION) -> None:
    """Print how a provider is proven, and which event becomes which file."""
    registry = _registry()
    provider = _chosen(registry, name)
    raw = tomllib.loads(registry.files[name].read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps({**raw, "file": str(registry.files[name])}, indent=2))
        return
    definition = provider.definition
    print(f"{definition.title} ({provider.adapter_version})")
    print(f"  file           {registry.files[name]}")
    if definition.documentation:
        print(f"  documentation  {definition.documentation}")
    print(f"  proven by      {_proof(provider)}")
    print(f"  URL            {_url_path('WORKSPACE', name)}")
    print(f"  secret         WORKSPACE/{name} in RELAYFILE_WEBHOOK_SECRETS_DIR; of `relayfile up`: DATA_DIR/secrets")
    if definition.proof.challenge is not None:
        print(f"  challenge      {', '.join(sorted(definition.proof.challenge.events))}, answered at once")
    if definition.proof.handshake is not None:
        print(f"  handshake      brings the secret: relayfile providers await WORKSPACE {name}")
    folders = raw.get("folders", {})
    for rule in raw.get("rules", ()):
        path = rule["path"] if rule["path"].startswith("/") else f"{folders.get(rule.get('folder'), '')}/{rule['path']}"
        print(f"\n  {', '.join(rule['events'])}")
        print(f"    {rule.get('kind', 'upsert')}  {path}  ({rule['object']}/{rule['id']})")
        for kind in ("upsert", "delete", "patch", "signal", "ignore"):
            if rule.get(kind):
                print(f"    {kind} when {', '.join(rule[kind])}")
    for title, events in (("ignored", definition.ignored_events), ("lost events", definition.lost_events)):
        if events:
            print(f"\n  {title}: {', '.join(sorted(events))}")


@app.command("test")
def try_payload(
    name: str = typer.Argument(help="The provider."),
    payload: Path = typer.Argument(help="A file with the body of a request.", exists=True, dir_okay=False),
    headers: list[str] = typer.Option(
        [], "--headers", help="A header as name=value, or a file with `Name: value` lines or a JSON object. Repeatable."
    ),
    secrets: list[str] = typer.Option([], "--secret", help="Check the signature with this secret. Repeatable."),
    url: str = typer.Option("", "--url", help="The URL that was called, for providers that sign it."),
    content: bool = typer.Option(False, "--content", help="Print the contents of the files too."),
    as_json: bool = _JSON_OPTION,
) -> None:
    """Print what a payload becomes. Exit code 1: it is not proven, or a part of it cannot be understood."""
    from relayfile.ingest.providers.adapter import RequestFacts

    provider = _chosen(_registry(), name)
    facts = RequestFacts(_headers(headers), payload.read_bytes())
    proof = _checked(provider, facts, secrets, url) if secrets else ""
    brought = bool(provider.scheme_for(facts.headers) is None and provider.handshake_secret(facts))
    challenge = provider.challenge_answer(provider.read(facts))
    deliveries = [] if challenge is not None or brought else list(_deliveries(provider, facts))
    failed = bool(proof) or any(envelope.HasField("failure") for envelope in deliveries)
    if as_json:
        print(
            json.dumps(
                {
                    "provider": provider.adapter_version,
                    "signature": proof or ("verified" if secrets else "not checked"),
                    "challenge_answer": challenge,
                    "handshake": brought,
                    "deliveries": [_as_json(envelope) for envelope in deliveries],
                },
                indent=2,
            )
        )
    else:
        print(f"signature: {proof or ('verified' if secrets else 'not checked (no --secret)')}")
        if challenge is not None:
            print(f"challenge: answered with {json.dumps(challenge)}; nothing is stored")
        if brought:
            print("handshake: brings a secret, when it is awaited; nothing else is stored")
        for envelope in deliveries:
            _print(envelope, content)
    if failed:
        raise typer.Exit(1)


@app.command("await")
def await_handshake(
    workspace: str = typer.Argument(help="The workspace that it is for; `_app/<app>` for an app."),
    name: str = typer.Argument(help="The provider."),
    lasts: str = typer.Option("1h", "--for", help="How long one handshake is accepted, at most 24h."),
    data_dir: Path = typer.Option(
        Path("relayfile-data"), "--data-dir", envvar="RELAYFILE_DATA_DIR", help="Data directory of `relayfile up`."
    ),
) -> None:
    """Let one unsigned handshake bring the secret of a sender (Notion, Asana)."""
    from relayfile.clock import SystemClock
    from relayfile.ingest.webhooks import secret_file

    registry = _registry()
    if _chosen(registry, name).handshake is None:
        shaking = ", ".join(sorted(each for each, provider in registry.items() if provider.handshake is not None))
        raise typer.BadParameter(f"{name} sends no handshake; these do: {shaking}", param_hint="NAME")
    if why := check_any_workspace_id(workspace):
        raise typer.BadParameter(f"{workspace!r} {why}", param_hint="WORKSPACE")
    try:
        seconds = parse_duration(lasts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    if not 0 < seconds <= AWAIT_S_MAX:
        raise typer.BadParameter(f"is {lasts}; more than 0s and at most 24h are possible", param_hint="--for")
    directory = _secrets_directory(data_dir)
    until_us = SystemClock().now_us() + round(seconds * 1_000_000)
    try:
        secret_file.await_handshake(directory, workspace, name, until_us)
    except OSError as error:
        raise SettingError(
            variable="RELAYFILE_WEBHOOK_SECRETS_DIR",
            problem=f"cannot be written to ({error})",
            way_out="run this as the user of ingest, on a directory that is mounted writable",
        ) from None
    until = datetime.fromtimestamp(until_us // 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    print(f"one handshake of {name} for {workspace} is awaited until {until}, in {directory / workspace / name}")
    print(f"its URL ends in {_url_path(workspace, name)}")


def _url_path(workspace: str, provider: str) -> str:
    if of_app := app_of(workspace):
        return f"/v1/apps/{of_app}/webhooks"
    ending = "envelopes" if provider == "generic" else f"webhooks/{provider}"
    return f"/v1/workspaces/{workspace}/{ending}"


def _registry() -> "ProviderRegistry":
    from relayfile.ingest.providers.registry import ProviderRegistry

    settings = load(IngestSettings)
    return ProviderRegistry.load(settings.content_bytes_max, settings.providers_dir)


def _chosen(registry: "ProviderRegistry", name: str) -> "Provider":
    if name not in registry:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(sorted(registry))}", param_hint="NAME")
    return registry[name]


def _secrets_directory(data_dir: Path) -> Path:
    from relayfile.local.layout import Layout

    configured = load(IngestSettings).webhook_secrets_dir
    if configured is not None:
        return configured
    local = Layout(data_dir).secrets
    if not local.is_dir():
        raise SettingError(
            variable="RELAYFILE_WEBHOOK_SECRETS_DIR",
            problem="is not set",
            way_out="set it as for ingest, or name the --data-dir of a system that `relayfile up` started",
        )
    return local


def _proof(provider: "Provider") -> str:
    proof = provider.definition.proof
    ways = [f"{'token' if scheme.is_token else 'signature'} {scheme.header}" for scheme in proof.schemes]
    return ", ".join([*ways, *(["bearer token"] if proof.accepts_token else [])])


def _headers(given: list[str]) -> dict[str, str]:
    """Of several sources the last one counts. Names in lower case, as an adapter sees them."""
    found: dict[str, str] = {}
    for each in given:
        name, separator, value = each.partition("=")
        if separator and not Path(each).is_file():
            found[name.strip().lower()] = value.strip()
            continue
        try:
            found |= _header_lines(Path(each).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"{each!r} is no name=value and no file of headers ({error})") from None
    return found


def _header_lines(text: str) -> dict[str, str]:
    if text.lstrip().startswith("{"):
        document = json.loads(text)
        return {str(name).lower(): str(value) for name, value in document.items()}
    lines = [line.partition(":") for line in text.splitlines() if line.strip()]
    if not all(separator for _, separator, _ in lines):
        raise ValueError("a line has no colon")
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _checked(provider: "Provider", facts: "RequestFacts", secrets: list[str], url: str) -> str:
    """Why the request is not proven; empty: it is, whatever its time was."""
    from relayfile.clock import SystemClock
    from relayfile.ingest.webhooks.signature import SignatureRefused, SignedRequest, verify

    scheme = provider.scheme_for(facts.headers)
    if scheme is None:
        return "SIGNATURE_MISSING"
    try:
        verify(scheme, SignedRequest(facts.headers, facts.body, "POST", url), secrets, SystemClock().now_us())
    except SignatureRefused as refused:
        # A recorded request is old; its time is looked at only when the signature was good.
        return "" if refused.reason == "TIMESTAMP_STALE" else refused.reason
    return ""


def _deliveries(provider: "Provider", facts: "RequestFacts") -> Iterator["types_pb2.Envelope"]:
    """What ingest would store, without the ids and times that it gives."""
    from relayfile.ingest.delivery import Arrival, complete

    for envelope, _, _ in provider.normalise(facts):
        envelope.provider = envelope.provider or provider.name
        complete(envelope, Arrival(1), lambda: "")
        yield envelope


def _as_json(envelope: "types_pb2.Envelope") -> Mapping[str, object]:
    outcome: dict[str, object] = {"delivery_id": envelope.delivery_id, "event": envelope.event_name}
    if envelope.HasField("failure"):
        return {**outcome, "failure": {"reason": envelope.failure.reason, "message": envelope.failure.message}}
    changes = [
        {
            "kind": _KINDS[change.kind],
            "path": change.path,
            "object_id": change.provider_object_id,
            "occurred_at": change.occurred_at.ToJsonString() if change.HasField("occurred_at") else None,
            "content_type": change.content_type,
            "content": change.content.decode(errors="replace"),
            "properties": dict(change.semantics.properties),
            "relations": list(change.semantics.relations),
        }
        for change in envelope.changes
    ]
    return {**outcome, "ignored": not changes, "changes": changes}


def _print(envelope: "types_pb2.Envelope", content: bool) -> None:
    print(f"\n{envelope.event_name or '(no event)'}  delivery {envelope.delivery_id or '(a new id each time)'}")
    if envelope.HasField("failure"):
        print(f"  dead letter {envelope.failure.reason}: {envelope.failure.message}")
    elif not envelope.changes:
        print("  ignored")
    for change in envelope.changes:
        time = change.occurred_at.ToJsonString() if change.HasField("occurred_at") else "no time"
        print(f"  {_KINDS[change.kind]}  {change.path or '(its path)'}  {change.provider_object_id}  {time}")
        if content and change.content:
            print("".join(f"    {line}\n" for line in change.content.decode(errors="replace").splitlines()), end="")
