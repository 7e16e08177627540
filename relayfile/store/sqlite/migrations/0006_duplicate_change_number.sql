-- migrate:up

-- What was a change's place in its envelope is a number made of the change itself (relayfile.store.plan.rows), always
-- below 0: a dead letter that is superseded by a redelivery is remembered as a duplicate by who knows only the other
-- envelope, in which the changes may stand in another order. Rows that are there keep their places, from 0, and are
-- looked for as well until they are too old.
ALTER TABLE duplicate_seen_0 RENAME COLUMN change_index TO change_number;
ALTER TABLE duplicate_seen_1 RENAME COLUMN change_index TO change_number;
ALTER TABLE duplicate_seen_2 RENAME COLUMN change_index TO change_number;

-- migrate:down
ALTER TABLE duplicate_seen_0 RENAME COLUMN change_number TO change_index;
ALTER TABLE duplicate_seen_1 RENAME COLUMN change_number TO change_index;
ALTER TABLE duplicate_seen_2 RENAME COLUMN change_number TO change_index;
