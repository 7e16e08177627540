-- migrate:up

-- Answers of requests that carried an id (D16), in the periods of `delivery_0` to `delivery_2`.
CREATE TABLE request_0 (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  method       TEXT    NOT NULL,
  request_id   TEXT    NOT NULL,
  fingerprint  BLOB    NOT NULL,    -- SHA-256 of the request
  answer       BLOB    NOT NULL,
  decided_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, method, request_id)
) WITHOUT ROWID;

CREATE TABLE request_1 (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  method       TEXT    NOT NULL,
  request_id   TEXT    NOT NULL,
  fingerprint  BLOB    NOT NULL,    -- SHA-256 of the request
  answer       BLOB    NOT NULL,
  decided_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, method, request_id)
) WITHOUT ROWID;

CREATE TABLE request_2 (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  method       TEXT    NOT NULL,
  request_id   TEXT    NOT NULL,
  fingerprint  BLOB    NOT NULL,    -- SHA-256 of the request
  answer       BLOB    NOT NULL,
  decided_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, method, request_id)
) WITHOUT ROWID;

-- What was ordered, written with its effect. Ids sort by time, so that the key lists the newest first.
CREATE TABLE admin_action (
  shard_id       INTEGER NOT NULL,
  workspace_id   TEXT    NOT NULL,
  action_id      TEXT    NOT NULL,
  action_us      INTEGER NOT NULL,
  actor          TEXT    NOT NULL,
  method         TEXT    NOT NULL,
  subject        TEXT    NOT NULL,
  reason         TEXT    NOT NULL,
  result         INTEGER NOT NULL,
  detail         TEXT    NOT NULL,
  request_id     TEXT    NOT NULL,
  correlation_id TEXT    NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, action_id)
) WITHOUT ROWID;

CREATE INDEX admin_action_by_time ON admin_action (shard_id, action_us);

-- What is paused now: the whole workspace where the provider is empty.
CREATE TABLE pause (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  provider     TEXT    NOT NULL,
  since_us     INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider)
) WITHOUT ROWID;

-- migrate:down
DROP TABLE pause;
DROP TABLE admin_action;
DROP TABLE request_2;
DROP TABLE request_1;
DROP TABLE request_0;
