-- migrate:up

-- Operations: agents' edits on their way to providers, and fetches. Ids sort by time. `ended_us` of one that has not ended
-- is the largest integer, so that one range of an index holds what has not ended and what ended lately.
-- States: 1 pending, 2 claimed, 3 succeeded, 4 dead-lettered, 5 superseded, 6 canceled, 7 quarantined.
-- Kinds: 1 write, 2 delete, 3 move, 4 fetch.
CREATE TABLE operation (
  shard_id        INTEGER NOT NULL,
  workspace_id    TEXT    NOT NULL,
  operation_id    TEXT    NOT NULL,
  provider        TEXT    NOT NULL,
  object_key      TEXT    NOT NULL,
  kind            INTEGER NOT NULL,
  state           INTEGER NOT NULL,
  path            TEXT    NOT NULL,
  revision        INTEGER NOT NULL,
  actor           TEXT    NOT NULL,
  created_us      INTEGER NOT NULL,
  claimable_us    INTEGER NOT NULL,
  moved_from      TEXT    NOT NULL,
  is_draft        INTEGER NOT NULL,
  base_revision   INTEGER NOT NULL,
  folded_count    INTEGER NOT NULL,
  content_id      INTEGER NOT NULL, -- 0 without one, and when it has ended for good
  content_sha256  BLOB    NOT NULL,
  size_bytes      INTEGER NOT NULL,
  content_type    TEXT    NOT NULL,
  semantics       TEXT,             -- JSON; absent when there are none
  known           TEXT,             -- JSON
  claim_number    INTEGER NOT NULL,
  claimed_by      TEXT    NOT NULL,
  claimed_us      INTEGER,
  claim_expire_us INTEGER,
  claim_request   TEXT    NOT NULL,
  attempt_count   INTEGER NOT NULL,
  is_blocked      INTEGER NOT NULL, -- an earlier operation of the object has not ended
  fault           TEXT,             -- JSON
  superseded_by   TEXT    NOT NULL,
  quarantine_id   TEXT    NOT NULL,
  result          BLOB    NOT NULL, -- a serialised OperationSuccess without content
  result_sha256   BLOB    NOT NULL,
  is_owed         INTEGER NOT NULL,
  correlation_id  TEXT    NOT NULL,
  traceparent     TEXT    NOT NULL,
  modified_us     INTEGER NOT NULL,
  ended_us        INTEGER NOT NULL,
  version         INTEGER NOT NULL,
  change_number   INTEGER NOT NULL, -- grows with every change of any operation of this node
  PRIMARY KEY (shard_id, workspace_id, operation_id)
) WITHOUT ROWID;

-- Lists, newest first by one of the filter's fields.
CREATE INDEX operation_by_provider ON operation (shard_id, workspace_id, provider, operation_id);
CREATE INDEX operation_by_object   ON operation (shard_id, workspace_id, object_key, operation_id);
CREATE INDEX operation_by_state    ON operation (shard_id, workspace_id, state, operation_id) WHERE state IN (1, 2, 4, 7);
CREATE INDEX operation_quarantined ON operation (shard_id, workspace_id, quarantine_id, operation_id)
  WHERE quarantine_id <> '';
-- What a plan needs of an object: all that has not ended, and what lately reached its provider.
CREATE INDEX operation_of_object ON operation (shard_id, workspace_id, provider, object_key, ended_us)
  WHERE claim_number > 0 OR ended_us = 9223372036854775807;
-- What may be claimed, in the order in which it became so; who has what; which claim ends next.
CREATE INDEX operation_claimable ON operation (shard_id, workspace_id, provider, claimable_us, operation_id)
  WHERE state = 1 AND is_blocked = 0;
CREATE INDEX operation_claimed ON operation (shard_id, workspace_id, provider, claim_expire_us) WHERE state = 2;
CREATE INDEX operation_claim_request ON operation (shard_id, claim_request) WHERE claim_request <> '';
-- Deletes that count for the quarantine.
CREATE INDEX operation_delete ON operation (shard_id, workspace_id, created_us)
  WHERE kind = 2 AND (quarantine_id = '' OR state = 7);
-- Watchers go on after the last change they saw; what ended long ago goes.
CREATE INDEX operation_by_change ON operation (shard_id, workspace_id, change_number);
CREATE INDEX operation_by_end    ON operation (shard_id, ended_us);

-- Providers' changes of objects with unfinished edits, until these end. The content is the change, a FoldMember.
CREATE TABLE held_change (
  shard_id     INTEGER NOT NULL,
  workspace_id TEXT    NOT NULL,
  provider     TEXT    NOT NULL,
  object_key   TEXT    NOT NULL,
  held_us      INTEGER NOT NULL,
  content_id   INTEGER NOT NULL,
  ingest_id    TEXT    NOT NULL,
  PRIMARY KEY (shard_id, workspace_id, provider, object_key)
) WITHOUT ROWID;

-- Contents that operations refer to which have not ended for good. One that its file lets go of meanwhile is garbage when
-- the last of them ends. Kept by triggers: whoever writes an operation, or lets go of a content, cannot forget it.
CREATE TABLE content_hold (
  shard_id    INTEGER NOT NULL,
  content_id  INTEGER NOT NULL,
  hold_count  INTEGER NOT NULL,
  released_us INTEGER,              -- absent while a file has it
  PRIMARY KEY (shard_id, content_id)
) WITHOUT ROWID;

CREATE TRIGGER content_released BEFORE INSERT ON content_garbage
WHEN EXISTS (SELECT 1 FROM content_hold WHERE shard_id = new.shard_id AND content_id = new.content_id) BEGIN
  UPDATE content_hold SET released_us = new.released_us
    WHERE shard_id = new.shard_id AND content_id = new.content_id;
  SELECT RAISE(IGNORE);
END;
CREATE TRIGGER content_hold_ended AFTER UPDATE OF hold_count ON content_hold WHEN new.hold_count = 0 BEGIN
  DELETE FROM content_hold WHERE shard_id = new.shard_id AND content_id = new.content_id;
  INSERT INTO content_garbage (shard_id, released_us, content_id)
    SELECT new.shard_id, new.released_us, new.content_id WHERE new.released_us IS NOT NULL;
END;
-- An operation is inserted without content, and takes or leaves it by an update; one that has ended for good has none.
CREATE TRIGGER operation_content AFTER UPDATE OF content_id ON operation WHEN new.content_id <> old.content_id BEGIN
  INSERT INTO content_hold (shard_id, content_id, hold_count) SELECT new.shard_id, new.content_id, 1
    WHERE new.content_id > 0 ON CONFLICT (shard_id, content_id) DO UPDATE SET hold_count = hold_count + 1;
  UPDATE content_hold SET hold_count = hold_count - 1
    WHERE shard_id = old.shard_id AND content_id = old.content_id AND old.content_id > 0;
END;
CREATE TRIGGER operation_deleted AFTER DELETE ON operation WHEN old.content_id > 0 BEGIN
  UPDATE content_hold SET hold_count = hold_count - 1
    WHERE shard_id = old.shard_id AND content_id = old.content_id;
END;

-- migrate:down
DROP TRIGGER content_released;
DROP TABLE operation;
DROP TABLE held_change;
DROP TABLE content_hold;
