"""The client library: channels, routing to the owner of a workspace, retries, resumed streams."""
