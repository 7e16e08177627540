-- The journal of one mirror. Rows of `file` are the remote files that the mirror may read; what is derived from them
-- (`root`) changes in the same transaction. State 1 is "materialised": only what is not has an index entry.
CREATE TABLE IF NOT EXISTS mirror (
  id                INTEGER PRIMARY KEY CHECK (id = 1),
  format            INTEGER NOT NULL,
  revision          INTEGER NOT NULL DEFAULT 0,
  history_id        TEXT    NOT NULL DEFAULT '',
  pull_phase        INTEGER NOT NULL DEFAULT 0,   -- PullPhase; of the first pull only
  pull_revision     INTEGER NOT NULL DEFAULT 0,
  pull_history_id   TEXT    NOT NULL DEFAULT '',
  barrier           INTEGER NOT NULL DEFAULT 0,   -- rows staged under this number or a later one may not be on disk
  trash_bytes       INTEGER NOT NULL DEFAULT 0,
  trash_count       INTEGER NOT NULL DEFAULT 0,
  last_pull_us      INTEGER NOT NULL DEFAULT 0,
  last_full_pull_us INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS root (
  path        TEXT PRIMARY KEY,
  file_count  INTEGER NOT NULL DEFAULT 0,
  total_bytes INTEGER NOT NULL DEFAULT 0,
  digest      BLOB    NOT NULL,
  pulled      INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file (
  path        TEXT    PRIMARY KEY,
  revision    INTEGER NOT NULL,
  remote_hash BLOB,
  size        INTEGER NOT NULL,
  state       INTEGER NOT NULL,
  disk_path   TEXT,                               -- NULL: the path itself
  disk_hash   BLOB,
  device      INTEGER,
  inode       INTEGER,
  disk_size   INTEGER,
  mtime_ns    INTEGER,
  ctime_ns    INTEGER,
  barrier     INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_unsettled ON file (state, path) WHERE state <> 1;
CREATE INDEX IF NOT EXISTS file_place ON file (disk_path) WHERE disk_path IS NOT NULL;
CREATE TABLE IF NOT EXISTS name (folded TEXT PRIMARY KEY, remote TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS problem (
  path          TEXT    NOT NULL,
  reason        TEXT    NOT NULL,
  message       TEXT    NOT NULL,
  revision      INTEGER NOT NULL,
  create_us     INTEGER NOT NULL,
  attempt_us    INTEGER NOT NULL,
  attempt_count INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (path)
) WITHOUT ROWID;
-- Edits that a provider refused for good, until it takes one of the same file.
CREATE TABLE IF NOT EXISTS refused_write (
  path          TEXT    NOT NULL,
  reason        TEXT    NOT NULL,
  message       TEXT    NOT NULL,
  revision      INTEGER NOT NULL,
  create_us     INTEGER NOT NULL,
  attempt_us    INTEGER NOT NULL,
  attempt_count INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (path)
) WITHOUT ROWID;
-- The plan of many deletes that waits for a decision, and files whose deletion somebody approved.
CREATE TABLE IF NOT EXISTS delete_plan (
  id        INTEGER PRIMARY KEY CHECK (id = 1),
  plan_id   TEXT    NOT NULL,
  rule      TEXT    NOT NULL,
  create_us INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS approved_delete (path TEXT PRIMARY KEY, disk_hash BLOB) WITHOUT ROWID;
-- Written files of remote paths that the mirror no longer has; the columns of `file`, without the barrier.
CREATE TABLE IF NOT EXISTS leaving (
  path TEXT PRIMARY KEY, revision INTEGER, remote_hash BLOB, size INTEGER, state INTEGER, disk_path TEXT, disk_hash BLOB,
  device INTEGER, inode INTEGER, disk_size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS access_lost (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trash (
  trash_id    TEXT    PRIMARY KEY,
  reason      INTEGER NOT NULL,
  remote_path TEXT    NOT NULL,
  local_path  TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  content_sha256 BLOB NOT NULL,
  size        INTEGER NOT NULL,
  revision    INTEGER NOT NULL,
  acknowledged INTEGER NOT NULL,
  create_us   INTEGER NOT NULL
) WITHOUT ROWID;
