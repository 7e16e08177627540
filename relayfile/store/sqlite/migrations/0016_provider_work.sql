-- migrate:up

-- What is open of each provider, counted from entries of an index: files whose content is older than a signal says, and
-- operations that have not ended. Nothing is kept that could differ from the rows.
CREATE INDEX file_stale ON file (shard_id, workspace_id, provider, stale_since_us)
  WHERE stale_since_us IS NOT NULL;
CREATE INDEX operation_unfinished ON operation (shard_id, workspace_id, provider)
  WHERE ended_us = 9223372036854775807;

-- migrate:down
DROP INDEX file_stale;
DROP INDEX operation_unfinished;
