"""`relayfile service-config`: what clients of every language should set on their channels."""

import typer

TXT_STRING_BYTES_MAX = 255
"""What one string of a TXT record holds; readers join them."""


def service_config(
    dns: bool = typer.Option(
        False, "--dns", help="As the value of the TXT record _grpc_config.NAME of the name server."
    ),
) -> None:
    """Print the gRPC service config: calls go round all nodes, and reads are tried again (docs/grpc.md)."""
    import json

    from relayfile.client.recommended import service_config as text

    if not dns:
        print(text().rstrip())
        return
    choices = json.dumps([{"serviceConfig": json.loads(text())}], separators=(",", ":"))
    value = f"grpc_config={choices}"
    pieces = (value[at : at + TXT_STRING_BYTES_MAX] for at in range(0, len(value), TXT_STRING_BYTES_MAX))
    print(" ".join('"' + piece.replace('"', '\\"') + '"' for piece in pieces))
