-- migrate:up

-- Lists of operations by when they were made, and by the path of their file or a directory above it.
CREATE INDEX operation_by_time ON operation (shard_id, workspace_id, created_us, operation_id);
CREATE INDEX operation_by_path ON operation (shard_id, workspace_id, path, operation_id);

-- migrate:down
DROP INDEX operation_by_time;
DROP INDEX operation_by_path;
