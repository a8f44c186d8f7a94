"""The tables of the run store, as one SQL script and its version. No code reads or writes rows here."""

VERSION = 1

TABLES = """
CREATE TABLE IF NOT EXISTS pairs (
    key TEXT PRIMARY KEY, refs TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS recipes (
    pair_key TEXT NOT NULL, recipe_hash TEXT NOT NULL, genome TEXT, genome_hash TEXT, fingerprint TEXT NOT NULL,
    ratio REAL, prescription TEXT, created REAL NOT NULL,
    PRIMARY KEY (pair_key, recipe_hash)
);
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, pair_key TEXT NOT NULL, state TEXT NOT NULL, phase TEXT NOT NULL, settings TEXT NOT NULL,
    title TEXT NOT NULL, start TEXT, controls TEXT NOT NULL DEFAULT '{}', result TEXT, prescription TEXT,
    error TEXT, job_id TEXT, threads INTEGER, owner TEXT, created REAL NOT NULL, updated REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS candidates (
    run_id TEXT NOT NULL, idx INTEGER NOT NULL, generation INTEGER NOT NULL, genes TEXT NOT NULL,
    genome_hash TEXT NOT NULL, recipe_hash TEXT NOT NULL, fitness REAL NOT NULL, items INTEGER NOT NULL,
    full_fitness REAL, tasks TEXT NOT NULL, mean_acc REAL NOT NULL, seconds REAL NOT NULL, created REAL NOT NULL,
    PRIMARY KEY (run_id, idx)
);
CREATE TABLE IF NOT EXISTS generations (
    run_id TEXT NOT NULL, generation INTEGER NOT NULL, row TEXT NOT NULL,
    PRIMARY KEY (run_id, generation)
);
CREATE TABLE IF NOT EXISTS scores (
    pair_key TEXT NOT NULL, recipe_hash TEXT NOT NULL, items_key TEXT NOT NULL, split TEXT NOT NULL,
    rows BLOB NOT NULL, threads INTEGER, created REAL NOT NULL,
    PRIMARY KEY (pair_key, recipe_hash, items_key)
);
CREATE TABLE IF NOT EXISTS reports (
    pair_key TEXT NOT NULL, recipe_hash TEXT NOT NULL, report TEXT NOT NULL, looks INTEGER NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (pair_key, recipe_hash)
);
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, title TEXT NOT NULL, key TEXT, state TEXT NOT NULL,
    fraction REAL NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT '', eta REAL, error TEXT,
    internal INTEGER NOT NULL DEFAULT 0, result TEXT, owner TEXT NOT NULL, created REAL NOT NULL, started REAL,
    finished REAL
);
CREATE TABLE IF NOT EXISTS exports (
    id TEXT PRIMARY KEY, pair_key TEXT NOT NULL, recipe_hash TEXT NOT NULL, genome_hash TEXT NOT NULL,
    folder TEXT NOT NULL, archive TEXT, bytes INTEGER NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS notes (
    kind TEXT NOT NULL, scope TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, created REAL NOT NULL,
    PRIMARY KEY (kind, scope, name)
);
CREATE TABLE IF NOT EXISTS digests (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, digest BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state);
CREATE INDEX IF NOT EXISTS runs_created ON runs (created);
"""
