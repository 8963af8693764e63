-- One row. Whoever has locked it may write; its revision numbers the writes in the order of their commits.
CREATE TABLE pilot_registry (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Names the channel on which the instances over this database talk.
    id       uuid    NOT NULL DEFAULT gen_random_uuid(),
    revision bigint  NOT NULL DEFAULT 0,
    -- Removals up to this revision are forgotten; who has seen less must read everything.
    purged   bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO pilot_registry DEFAULT VALUES;

CREATE TABLE pilot_records (
    kind       text   NOT NULL,
    number     bigint NOT NULL,
    -- Of the write that changed it last.
    revision   bigint NOT NULL,
    -- JSON; as text, because the type json refuses what a node may write about itself. NULL: removed.
    value      text,
    -- What must be unique, as the registry sees to; here so that the database refuses if it ever fails to. Checked at
    -- the end of a write, in which a name may pass from one to another.
    public_key text,
    name       text,
    removed_at timestamptz,
    PRIMARY KEY (kind, number),
    CONSTRAINT pilot_records_public_key UNIQUE (public_key) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT pilot_records_name UNIQUE (kind, name) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX pilot_records_revision ON pilot_records (revision);
