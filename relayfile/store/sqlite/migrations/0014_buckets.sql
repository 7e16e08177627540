-- migrate:up

-- Buckets of wide directories (D9, relayfile.store.plan.buckets): the name up to which entries of a directory are
-- counted, '' before the first, '/' when all are; absent for a directory that has none.
ALTER TABLE directory ADD COLUMN buckets_to TEXT;

-- Directories whose buckets are being built.
CREATE TABLE bucket_build (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  path         TEXT    NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, path)
) WITHOUT ROWID;

INSERT INTO bucket_build SELECT shard_id, workspace_id, path FROM directory WHERE entry_count > 4096;
UPDATE directory SET buckets_to = '' WHERE entry_count > 4096;

-- migrate:down
DROP TABLE bucket_build;
DELETE FROM directory_bucket;
ALTER TABLE directory DROP COLUMN buckets_to;
