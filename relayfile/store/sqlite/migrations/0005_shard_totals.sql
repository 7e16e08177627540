-- migrate:up

-- The sums of each shard's counters over its workspaces, so that a node's status costs nothing for a workspace. Kept by
-- triggers: whoever changes a counter cannot forget the sum.
CREATE TABLE outcome_total (
  shard_id INTEGER NOT NULL,
  provider TEXT    NOT NULL,
  outcome  INTEGER NOT NULL,
  count    INTEGER NOT NULL,
  PRIMARY KEY (shard_id, provider, outcome)
) WITHOUT ROWID;

CREATE TABLE failure_total (
  shard_id INTEGER NOT NULL,
  provider TEXT    NOT NULL,
  reason   TEXT    NOT NULL,
  count    INTEGER NOT NULL,
  PRIMARY KEY (shard_id, provider, reason)
) WITHOUT ROWID;

CREATE TABLE provider_seen_total (
  shard_id         INTEGER NOT NULL,
  provider         TEXT    NOT NULL,
  last_received_us INTEGER,
  last_applied_us  INTEGER,
  PRIMARY KEY (shard_id, provider)
) WITHOUT ROWID;

INSERT INTO outcome_total
  SELECT shard_id, provider, outcome, sum(count) FROM outcome_count GROUP BY shard_id, provider, outcome;
INSERT INTO failure_total
  SELECT shard_id, provider, reason, sum(count) FROM failure_count GROUP BY shard_id, provider, reason;
INSERT INTO provider_seen_total
  SELECT shard_id, provider, max(last_received_us), max(last_applied_us) FROM provider_seen GROUP BY shard_id, provider;

CREATE TRIGGER outcome_count_inserted AFTER INSERT ON outcome_count BEGIN
  INSERT INTO outcome_total VALUES (new.shard_id, new.provider, new.outcome, new.count)
  ON CONFLICT (shard_id, provider, outcome) DO UPDATE SET count = count + excluded.count;
END;
CREATE TRIGGER outcome_count_updated AFTER UPDATE OF count ON outcome_count BEGIN
  UPDATE outcome_total SET count = count + new.count - old.count
  WHERE shard_id = new.shard_id AND provider = new.provider AND outcome = new.outcome;
END;
CREATE TRIGGER failure_count_inserted AFTER INSERT ON failure_count BEGIN
  INSERT INTO failure_total VALUES (new.shard_id, new.provider, new.reason, new.count)
  ON CONFLICT (shard_id, provider, reason) DO UPDATE SET count = count + excluded.count;
END;
CREATE TRIGGER failure_count_updated AFTER UPDATE OF count ON failure_count BEGIN
  UPDATE failure_total SET count = count + new.count - old.count
  WHERE shard_id = new.shard_id AND provider = new.provider AND reason = new.reason;
END;
CREATE TRIGGER provider_seen_inserted AFTER INSERT ON provider_seen BEGIN
  INSERT INTO provider_seen_total VALUES (new.shard_id, new.provider, new.last_received_us, new.last_applied_us)
  ON CONFLICT (shard_id, provider) DO UPDATE SET
    last_received_us = max(coalesce(last_received_us, 0), coalesce(excluded.last_received_us, last_received_us, 0)),
    last_applied_us = coalesce(max(last_applied_us, excluded.last_applied_us), last_applied_us, excluded.last_applied_us);
END;
CREATE TRIGGER provider_seen_updated AFTER UPDATE ON provider_seen BEGIN
  UPDATE provider_seen_total SET
    last_received_us = max(coalesce(last_received_us, 0), coalesce(new.last_received_us, last_received_us, 0)),
    last_applied_us = coalesce(max(last_applied_us, new.last_applied_us), last_applied_us, new.last_applied_us)
  WHERE shard_id = new.shard_id AND provider = new.provider;
END;

-- migrate:down
DROP TRIGGER outcome_count_inserted;
DROP TRIGGER outcome_count_updated;
DROP TRIGGER failure_count_inserted;
DROP TRIGGER failure_count_updated;
DROP TRIGGER provider_seen_inserted;
DROP TRIGGER provider_seen_updated;
DROP TABLE outcome_total;
DROP TABLE failure_total;
DROP TABLE provider_seen_total;
