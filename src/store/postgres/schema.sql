-- What onlyonce keeps in PostgreSQL, version 1. `onlyonce store init` runs this, and `onlyonce store init --sql` prints it.
BEGIN;
-- Whoever does the same at the same time waits here.
SELECT pg_advisory_xact_lock(7954887241523104111);

DO $tables$
BEGIN
  -- All or nothing is there. Statements that look for each of them again would lock out who works with them.
  IF to_regclass('onlyonce.notes') IS NOT NULL THEN
    RETURN;
  END IF;
  -- Whoever may make tables in it need not be allowed to make schemas.
  IF to_regnamespace('onlyonce') IS NULL THEN
    CREATE SCHEMA onlyonce;
  END IF;

  -- The version of all this, and for each store.prefix the note about its digest key.
  CREATE TABLE onlyonce.notes (
    name     text COLLATE "C" PRIMARY KEY,
    value    bytea NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp()
  );
  INSERT INTO onlyonce.notes (name, value) VALUES ('schema', '1');

  -- The claims, and what became of them. One table: a unique constraint on one that is partitioned by time would hold the
  -- time, and one name could be claimed twice. docs/record-layout.md says what a record is.
  CREATE TABLE onlyonce.records (
    name       text COLLATE "C" PRIMARY KEY,
    record     bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    -- The hour after which the row may be deleted. It is indexed in place of the exact time, which every update changes.
    sweep_hour integer NOT NULL,
    -- Where the chunks of its body lie, if the body is apart.
    body_at    timestamptz
  ) WITH (
    -- Room for the next version of a row on the same page.
    fillfactor = 60,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
  );
  -- A slice of a value must not need all of it.
  ALTER TABLE onlyonce.records ALTER COLUMN record SET STORAGE EXTERNAL;
  CREATE INDEX records_sweep ON onlyonce.records (sweep_hour);

  -- Bodies of answers that are too large for a narrow row, in chunks. They expire by the partition, which is dropped.
  CREATE TABLE onlyonce.bodies (
    expires_at timestamptz NOT NULL,
    owner      bytea NOT NULL,
    piece      integer NOT NULL,
    chunk      bytea NOT NULL
  ) PARTITION BY RANGE (expires_at);
  ALTER TABLE onlyonce.bodies ALTER COLUMN chunk SET STORAGE EXTERNAL;
  CREATE INDEX bodies_owner ON onlyonce.bodies (owner, piece);

  -- Who waits for a record to change. Lost in a crash, and nobody minds.
  CREATE UNLOGGED TABLE onlyonce.waiters (
    name  text COLLATE "C" PRIMARY KEY,
    until timestamptz NOT NULL
  );
END
$tables$;

-- Partitions are made and dropped with the rights of the owner, so that the role of the sidecars need not be it.
CREATE OR REPLACE FUNCTION onlyonce.make_partition(at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET client_min_messages = error
SET standard_conforming_strings = on AS $$
DECLARE
  width CONSTANT bigint := 6 * 3600;
  slot  CONSTANT bigint := floor(extract(epoch FROM at) / (6 * 3600));
  child CONSTANT text := 'bodies_' || slot;
BEGIN
  IF to_regclass('onlyonce.' || child) IS NOT NULL THEN
    RETURN;
  END IF;
  PERFORM pg_advisory_xact_lock(7954887241523104111);
  IF to_regclass('onlyonce.' || child) IS NULL THEN
    -- To attach it locks nobody out who reads or writes; to create it as a partition would.
    EXECUTE format('CREATE TABLE onlyonce.%I (LIKE onlyonce.bodies INCLUDING STORAGE)', child);
    EXECUTE format('ALTER TABLE onlyonce.bodies ATTACH PARTITION onlyonce.%I FOR VALUES FROM (%L) TO (%L)', child,
                   to_timestamp(slot * width), to_timestamp((slot + 1) * width));
  END IF;
END
$$;

-- A partition is dropped an hour after the last body in it has expired: a clock may be set back. One in a call, and only if
-- nobody is in the way: everybody else who wants a body waits behind this one.
CREATE OR REPLACE FUNCTION onlyonce.drop_partition() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms'
SET client_min_messages = error SET standard_conforming_strings = on AS $$
DECLARE
  child name;
BEGIN
  SELECT c.relname INTO child FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'onlyonce.bodies'::regclass
    AND (substring(c.relname FROM '^bodies_(\d+)$')::bigint + 1) * 6 * 3600
        < extract(epoch FROM clock_timestamp() - interval '1 hour')
  ORDER BY c.relname LIMIT 1;
  IF child IS NULL OR NOT pg_try_advisory_xact_lock(7954887241523104111) THEN
    RETURN false;
  END IF;
  -- The commit holds the locks, and must not wait for a standby that is away. One that has not heard of it drops it again.
  PERFORM set_config('synchronous_commit', 'local', true);
  EXECUTE format('DROP TABLE IF EXISTS onlyonce.%I', child);
  RETURN true;
END
$$;

REVOKE ALL ON FUNCTION onlyonce.make_partition(timestamptz), onlyonce.drop_partition() FROM PUBLIC;
COMMIT;
