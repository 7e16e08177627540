-- migrate:up

-- One row per fact that is fixed when the node is made: cluster_id, shard_count, node_index, node_count.
CREATE TABLE meta (
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- Ownership (D11). Every write transaction checks the epochs of its shards here.
CREATE TABLE shard (
  shard_id      INTEGER NOT NULL PRIMARY KEY,
  epoch         INTEGER NOT NULL,
  owner         INTEGER NOT NULL,
  address       TEXT    NOT NULL,
  state         INTEGER NOT NULL,
  expires_at_us INTEGER
);

CREATE TABLE workspace (
  shard_id        INTEGER NOT NULL,
  workspace_id    TEXT    NOT NULL,
  history_id      TEXT    NOT NULL,
  revision        INTEGER NOT NULL,
  created_us      INTEGER NOT NULL,
  deleted_us      INTEGER,
  modified_us     INTEGER,
  files_max       INTEGER NOT NULL,
  total_bytes_max INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id)
) WITHOUT ROWID;

CREATE TABLE file (
  shard_id       INTEGER NOT NULL,
  workspace_id   TEXT    NOT NULL,
  path           TEXT    NOT NULL,
  revision       INTEGER NOT NULL,
  content_id     INTEGER NOT NULL,
  content_sha256 BLOB    NOT NULL,
  size_bytes     INTEGER NOT NULL,
  content_type   TEXT    NOT NULL,
  provider       TEXT    NOT NULL,
  object_key     TEXT    NOT NULL,
  modified_us    INTEGER NOT NULL,
  origin         INTEGER NOT NULL,
  semantics      TEXT,              -- JSON; absent when there are none
  stale_since_us INTEGER,
  PRIMARY KEY (shard_id, workspace_id, path)
) WITHOUT ROWID;

-- Appended: an integer key keeps the bytes out of the trees that are searched, and doubles the rate.
CREATE TABLE content (
  content_id INTEGER NOT NULL PRIMARY KEY,
  shard_id   INTEGER NOT NULL,
  data       BLOB    NOT NULL
);

-- Contents to which nothing refers any more: deleted in batches, once readers in chunks had time to finish.
CREATE TABLE content_garbage (
  shard_id    INTEGER NOT NULL,
  released_us INTEGER NOT NULL,
  content_id  INTEGER NOT NULL,
  PRIMARY KEY (shard_id, released_us, content_id)
) WITHOUT ROWID;

CREATE TABLE directory (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  path         TEXT    NOT NULL,
  file_count   INTEGER NOT NULL,
  total_bytes  INTEGER NOT NULL,
  rule_count   INTEGER NOT NULL,
  digest       BLOB    NOT NULL,    -- 32 bytes, big-endian
  entry_count  INTEGER NOT NULL,
  revision     INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, path)
) WITHOUT ROWID;

-- Of wide directories only (D9).
CREATE TABLE directory_bucket (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  path         TEXT    NOT NULL,
  bucket       INTEGER NOT NULL,
  file_count   INTEGER NOT NULL,
  total_bytes  INTEGER NOT NULL,
  digest       BLOB    NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, path, bucket)
) WITHOUT ROWID;

CREATE TABLE event (
  shard_id       INTEGER NOT NULL,
  workspace_id   TEXT    NOT NULL,
  revision       INTEGER NOT NULL,
  type           INTEGER NOT NULL,
  path           TEXT    NOT NULL,
  moved_to       TEXT    NOT NULL,
  moved_from     TEXT    NOT NULL,
  content_sha256 BLOB    NOT NULL,
  size_bytes     INTEGER NOT NULL,
  origin         INTEGER NOT NULL,
  provider       TEXT    NOT NULL,
  correlation_id TEXT    NOT NULL,
  traceparent    TEXT    NOT NULL,
  committed_us   INTEGER NOT NULL,
  operation_id   TEXT    NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, revision)
) WITHOUT ROWID;

-- Two watermarks for each object: times by the provider's clock, and by the receiving process's.
CREATE TABLE object (
  shard_id             INTEGER NOT NULL,
  workspace_id         TEXT    NOT NULL,
  provider             TEXT    NOT NULL,
  object_key           TEXT    NOT NULL,
  path                 TEXT,
  deleted              INTEGER NOT NULL,
  displaced_from       TEXT,
  provider_newest_us   INTEGER,
  provider_full_us     INTEGER,
  provider_delete_us   INTEGER,
  provider_patch_marks TEXT,        -- JSON; absent when there are none
  received_newest_us   INTEGER,
  received_full_us     INTEGER,
  received_delete_us   INTEGER,
  received_patch_marks TEXT,        -- JSON; absent when there are none
  received_by          TEXT    NOT NULL,
  changed_us           INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider, object_key)
) WITHOUT ROWID;

-- How each change ended (D3), in periods of 7 days: period p is in slot p mod 3, so that expiry empties a whole table.
CREATE TABLE delivery_0 (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  provider     TEXT    NOT NULL,
  delivery_id  TEXT    NOT NULL,
  change_key   TEXT    NOT NULL,
  envelope_id  TEXT    NOT NULL,
  outcome      INTEGER NOT NULL,
  decided_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider, delivery_id, change_key)
) WITHOUT ROWID;

CREATE TABLE delivery_1 (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  provider     TEXT    NOT NULL,
  delivery_id  TEXT    NOT NULL,
  change_key   TEXT    NOT NULL,
  envelope_id  TEXT    NOT NULL,
  outcome      INTEGER NOT NULL,
  decided_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider, delivery_id, change_key)
) WITHOUT ROWID;

CREATE TABLE delivery_2 (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  provider     TEXT    NOT NULL,
  delivery_id  TEXT    NOT NULL,
  change_key   TEXT    NOT NULL,
  envelope_id  TEXT    NOT NULL,
  outcome      INTEGER NOT NULL,
  decided_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider, delivery_id, change_key)
) WITHOUT ROWID;

-- Changes that ended as `duplicate`, so that their resend counts nothing; in the same periods.
CREATE TABLE duplicate_seen_0 (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  envelope_id  TEXT    NOT NULL,
  change_index INTEGER NOT NULL,
  decided_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, envelope_id, change_index)
) WITHOUT ROWID;

CREATE TABLE duplicate_seen_1 (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  envelope_id  TEXT    NOT NULL,
  change_index INTEGER NOT NULL,
  decided_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, envelope_id, change_index)
) WITHOUT ROWID;

CREATE TABLE duplicate_seen_2 (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  envelope_id  TEXT    NOT NULL,
  change_index INTEGER NOT NULL,
  decided_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, envelope_id, change_index)
) WITHOUT ROWID;

CREATE TABLE outcome_count (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  provider     TEXT    NOT NULL,
  outcome      INTEGER NOT NULL,
  count        INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider, outcome)
) WITHOUT ROWID;

CREATE TABLE provider_seen (
  shard_id         INTEGER NOT NULL,
  workspace_id     TEXT    NOT NULL,
  provider         TEXT    NOT NULL,
  last_received_us INTEGER,
  last_applied_us  INTEGER,
  PRIMARY KEY (shard_id, workspace_id, provider)
) WITHOUT ROWID;

-- Ids sort by time, so that the key lists the newest first. The raw body, or the change, is a content.
CREATE TABLE dead_letter (
  shard_id           INTEGER NOT NULL,
  workspace_id       TEXT    NOT NULL,
  dead_letter_id     TEXT    NOT NULL,
  stage              TEXT    NOT NULL,
  state              INTEGER NOT NULL,
  provider           TEXT    NOT NULL,
  delivery_id        TEXT    NOT NULL,
  change_key         TEXT    NOT NULL,
  envelope_id        TEXT    NOT NULL,
  reason             TEXT    NOT NULL,
  message            TEXT    NOT NULL,
  content_id         INTEGER NOT NULL,
  body_size_bytes    INTEGER NOT NULL,
  headers            TEXT,          -- JSON; absent when there are none
  adapter_version    TEXT    NOT NULL,
  event_name         TEXT    NOT NULL,
  correlation_id     TEXT    NOT NULL,
  received_us        INTEGER NOT NULL,
  created_us         INTEGER NOT NULL,
  attempt_count      INTEGER NOT NULL,
  last_attempt_us    INTEGER NOT NULL,
  acknowledged_us    INTEGER,
  acknowledged_by    TEXT,
  acknowledge_reason TEXT,
  PRIMARY KEY (shard_id, workspace_id, dead_letter_id)
) WITHOUT ROWID;

CREATE INDEX dead_letter_by_delivery ON dead_letter (shard_id, workspace_id, provider, delivery_id, change_key);
CREATE INDEX dead_letter_by_creation ON dead_letter (shard_id, created_us);

-- Dead letters that are kept, by reason.
CREATE TABLE failure_count (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  provider     TEXT    NOT NULL,
  reason       TEXT    NOT NULL,
  count        INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider, reason)
) WITHOUT ROWID;

-- migrate:down
-- There is no way back from the first schema but an empty directory.
