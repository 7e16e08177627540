-- migrate:up

-- By what files are found (relayfile.store.plan.file_index): a row for each relation (kind 1), permission (2), comment
-- (3) and property (4, `name=value`) of a file, of which the first 128 characters are kept.
CREATE TABLE file_term (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  kind         INTEGER NOT NULL,
  value        TEXT    NOT NULL,
  path         TEXT    NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, kind, value, path)
) WITHOUT ROWID;

INSERT OR IGNORE INTO file_term
  SELECT f.shard_id, f.workspace_id, 1, substr(j.value, 1, 128), f.path
  FROM file AS f, json_each(f.semantics, '$.relations') AS j WHERE f.semantics IS NOT NULL;
INSERT OR IGNORE INTO file_term
  SELECT f.shard_id, f.workspace_id, 2, substr(j.value, 1, 128), f.path
  FROM file AS f, json_each(f.semantics, '$.permissions') AS j WHERE f.semantics IS NOT NULL;
INSERT OR IGNORE INTO file_term
  SELECT f.shard_id, f.workspace_id, 3, substr(j.value, 1, 128), f.path
  FROM file AS f, json_each(f.semantics, '$.comments') AS j WHERE f.semantics IS NOT NULL;
INSERT OR IGNORE INTO file_term
  SELECT f.shard_id, f.workspace_id, 4, substr(j.key || '=' || j.value, 1, 128), f.path
  FROM file AS f, json_each(f.semantics, '$.properties') AS j WHERE f.semantics IS NOT NULL;

-- Whose files are directly in a directory. Its path ends with `/`, so that the order of directories is that of what is
-- in them.
CREATE TABLE provider_directory (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  provider     TEXT    NOT NULL,
  path         TEXT    NOT NULL,
  file_count   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider, path)
) WITHOUT ROWID;

INSERT INTO provider_directory
  SELECT shard_id, workspace_id, provider, rtrim(path, replace(path, '/', '')) AS directory, count(*)
  FROM file WHERE provider <> '' GROUP BY shard_id, workspace_id, provider, directory;

-- migrate:down
DROP TABLE provider_directory;
DROP TABLE file_term;
