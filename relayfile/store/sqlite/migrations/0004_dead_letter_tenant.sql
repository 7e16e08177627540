-- migrate:up

-- Whose delivery of an app it is: a route finds the dead letters of its tenant among those of all others.
ALTER TABLE dead_letter ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
UPDATE dead_letter SET tenant = json_extract(headers, '$."x-relayfile-tenant"')
  WHERE headers LIKE '%"x-relayfile-tenant"%';
CREATE INDEX dead_letter_by_tenant ON dead_letter (shard_id, workspace_id, tenant, dead_letter_id) WHERE tenant <> '';

-- migrate:down
DROP INDEX dead_letter_by_tenant;
ALTER TABLE dead_letter DROP COLUMN tenant;
