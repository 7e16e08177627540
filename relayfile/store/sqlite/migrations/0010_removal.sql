-- migrate:up

-- Deleted workspaces whose rows are still being removed. Written by a trigger: whoever writes a tombstone cannot forget
-- what is behind it.
CREATE TABLE workspace_removal (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  deleted_us   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id)
) WITHOUT ROWID;

CREATE TRIGGER workspace_deleted AFTER INSERT ON workspace WHEN new.deleted_us IS NOT NULL BEGIN
  INSERT OR REPLACE INTO workspace_removal VALUES (new.shard_id, new.workspace_id, new.deleted_us);
END;

-- Tombstones that may end.
CREATE INDEX workspace_tombstone ON workspace (shard_id, deleted_us) WHERE deleted_us IS NOT NULL;

-- A shard's sums follow counters that go.
CREATE TRIGGER outcome_count_deleted AFTER DELETE ON outcome_count BEGIN
  UPDATE outcome_total SET count = count - old.count
  WHERE shard_id = old.shard_id AND provider = old.provider AND outcome = old.outcome;
END;
CREATE TRIGGER failure_count_deleted AFTER DELETE ON failure_count BEGIN
  UPDATE failure_total SET count = count - old.count
  WHERE shard_id = old.shard_id AND provider = old.provider AND reason = old.reason;
END;

-- Administrative actions of all workspaces of a node, newest first.
CREATE INDEX admin_action_by_id ON admin_action (action_id);

-- migrate:down
DROP INDEX admin_action_by_id;
DROP TRIGGER failure_count_deleted;
DROP TRIGGER outcome_count_deleted;
DROP INDEX workspace_tombstone;
DROP TRIGGER workspace_deleted;
DROP TABLE workspace_removal;
