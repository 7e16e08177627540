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
  last_full_pull_us INTEGER NOT NULL DEFAULT 0,
  last_sequence     INTEGER NOT NULL DEFAULT 0,   -- of the outbox
  last_acknowledged_us INTEGER NOT NULL DEFAULT 0
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
  barrier     INTEGER NOT NULL DEFAULT 0,
  base_revision INTEGER NOT NULL DEFAULT 0        -- of disk_hash, while that is not remote_hash
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
-- Edits that the store has not acknowledged, or whose event has not come: one per path, its row in state 6.
CREATE TABLE IF NOT EXISTS outbox (
  path           TEXT    PRIMARY KEY,
  sequence       INTEGER NOT NULL,
  kind           INTEGER NOT NULL,                -- EditKind
  state          INTEGER NOT NULL,                -- EntryState
  if_revision    INTEGER NOT NULL,
  known_revision INTEGER NOT NULL,
  content_hash   BLOB,
  device         INTEGER,
  inode          INTEGER,
  disk_size      INTEGER,
  mtime_ns       INTEGER,
  ctime_ns       INTEGER,
  request_id     TEXT    NOT NULL DEFAULT '',
  position       INTEGER NOT NULL DEFAULT 0,      -- in its request
  from_path      TEXT    NOT NULL DEFAULT '',
  revision       INTEGER NOT NULL DEFAULT 0,      -- of the store's acknowledgement
  attempt_count  INTEGER NOT NULL DEFAULT 0,
  attempt_us     INTEGER NOT NULL DEFAULT 0,      -- not before
  await_revision INTEGER NOT NULL DEFAULT 0,      -- not before the cursor is there
  approved       INTEGER NOT NULL DEFAULT 0,      -- a delete that was held, and about which somebody decided
  create_us      INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outbox_order ON outbox (state, sequence);
CREATE INDEX IF NOT EXISTS outbox_acknowledged ON outbox (revision) WHERE state = 3;
CREATE INDEX IF NOT EXISTS outbox_inode ON outbox (inode) WHERE inode IS NOT NULL;
CREATE TABLE IF NOT EXISTS conflict (
  conflict_id     TEXT    PRIMARY KEY,
  kind            INTEGER NOT NULL,
  path            TEXT    NOT NULL,
  disk_path       TEXT    NOT NULL,
  kept_name       TEXT    NOT NULL,
  base_revision   INTEGER NOT NULL,
  remote_revision INTEGER NOT NULL,
  remote_hash     BLOB    NOT NULL,
  remote_size     INTEGER NOT NULL,
  local_hash      BLOB    NOT NULL,
  local_size      INTEGER NOT NULL,
  create_us       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS conflict_path ON conflict (path, conflict_id);
