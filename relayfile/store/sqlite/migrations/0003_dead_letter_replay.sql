-- migrate:up

-- What a replay and the description need beside the kept bytes.
ALTER TABLE dead_letter ADD COLUMN traceparent TEXT    NOT NULL DEFAULT '';
ALTER TABLE dead_letter ADD COLUMN path        TEXT    NOT NULL DEFAULT '';
ALTER TABLE dead_letter ADD COLUMN change_kind INTEGER NOT NULL DEFAULT 0;

-- A change that met a fault of ours is a change (its kept bytes are a FoldMember), and no request to normalise again.
UPDATE dead_letter SET stage = 'apply' WHERE stage = 'normalise' AND change_key NOT LIKE 'n:%';

-- States: 1 pending, 2 acknowledged, 3 replaying. What is queued for another try, oldest first by workspace; and what may
-- expire.
CREATE INDEX dead_letter_replaying ON dead_letter (shard_id, workspace_id, stage, dead_letter_id) WHERE state = 3;
CREATE INDEX dead_letter_acknowledged ON dead_letter (shard_id, created_us) WHERE state = 2;

-- How many are kept, and the bytes of their bodies. Kept by triggers, as the sums of reasons are from here on: whoever
-- writes a dead letter cannot forget them.
CREATE TABLE dead_letter_total (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  provider     TEXT    NOT NULL,
  state        INTEGER NOT NULL,
  count        INTEGER NOT NULL,
  body_bytes   INTEGER NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider, state)
) WITHOUT ROWID;

INSERT INTO dead_letter_total
  SELECT shard_id, workspace_id, provider, state, count(*), sum(body_size_bytes) FROM dead_letter
  GROUP BY shard_id, workspace_id, provider, state;

CREATE TRIGGER dead_letter_inserted AFTER INSERT ON dead_letter BEGIN
  INSERT INTO dead_letter_total
    VALUES (new.shard_id, new.workspace_id, new.provider, new.state, 1, new.body_size_bytes)
    ON CONFLICT (shard_id, workspace_id, provider, state)
    DO UPDATE SET count = count + 1, body_bytes = body_bytes + excluded.body_bytes;
  INSERT INTO failure_count VALUES (new.shard_id, new.workspace_id, new.provider, new.reason, 1)
    ON CONFLICT (shard_id, workspace_id, provider, reason) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER dead_letter_deleted AFTER DELETE ON dead_letter BEGIN
  UPDATE dead_letter_total SET count = count - 1, body_bytes = body_bytes - old.body_size_bytes
    WHERE shard_id = old.shard_id AND workspace_id = old.workspace_id AND provider = old.provider
    AND state = old.state;
  UPDATE failure_count SET count = count - 1
    WHERE shard_id = old.shard_id AND workspace_id = old.workspace_id AND provider = old.provider
    AND reason = old.reason;
END;
CREATE TRIGGER dead_letter_state_changed AFTER UPDATE OF state ON dead_letter BEGIN
  UPDATE dead_letter_total SET count = count - 1, body_bytes = body_bytes - old.body_size_bytes
    WHERE shard_id = old.shard_id AND workspace_id = old.workspace_id AND provider = old.provider
    AND state = old.state;
  INSERT INTO dead_letter_total
    VALUES (new.shard_id, new.workspace_id, new.provider, new.state, 1, new.body_size_bytes)
    ON CONFLICT (shard_id, workspace_id, provider, state)
    DO UPDATE SET count = count + 1, body_bytes = body_bytes + excluded.body_bytes;
END;
CREATE TRIGGER dead_letter_reason_changed AFTER UPDATE OF reason ON dead_letter WHEN new.reason <> old.reason BEGIN
  UPDATE failure_count SET count = count - 1
    WHERE shard_id = old.shard_id AND workspace_id = old.workspace_id AND provider = old.provider
    AND reason = old.reason;
  INSERT INTO failure_count VALUES (new.shard_id, new.workspace_id, new.provider, new.reason, 1)
    ON CONFLICT (shard_id, workspace_id, provider, reason) DO UPDATE SET count = count + 1;
END;

-- migrate:down
DROP TRIGGER dead_letter_inserted;
DROP TRIGGER dead_letter_deleted;
DROP TRIGGER dead_letter_state_changed;
DROP TRIGGER dead_letter_reason_changed;
DROP TABLE dead_letter_total;
DROP INDEX dead_letter_replaying;
DROP INDEX dead_letter_acknowledged;
ALTER TABLE dead_letter DROP COLUMN traceparent;
ALTER TABLE dead_letter DROP COLUMN path;
ALTER TABLE dead_letter DROP COLUMN change_kind;
