-- Every mirror of one syncd, over restarts.
CREATE TABLE IF NOT EXISTS mirror (
  mirror_id    TEXT PRIMARY KEY,
  workspace_id TEXT NOT NULL,
  directory    TEXT NOT NULL UNIQUE,
  remote_paths TEXT NOT NULL,   -- JSON
  follow       INTEGER NOT NULL,
  read_only    INTEGER NOT NULL,
  token_file   TEXT NOT NULL,
  create_us    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS request (
  request_id TEXT PRIMARY KEY,
  fingerprint BLOB NOT NULL,
  mirror_id  TEXT NOT NULL,
  create_us  INTEGER NOT NULL,
  workspace_id TEXT NOT NULL DEFAULT '',
  answer     BLOB            -- NULL: that of CreateMirror, which shows the mirror as it is
) WITHOUT ROWID;
