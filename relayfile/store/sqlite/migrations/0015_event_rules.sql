-- migrate:up

-- The file's own rules when the event happened: whoever they shut out does not learn of it, also when the file is gone.
-- A JSON list of permissions; absent when there were none. Events of earlier releases have none.
ALTER TABLE event ADD COLUMN rules TEXT;

-- migrate:down
ALTER TABLE event DROP COLUMN rules;
