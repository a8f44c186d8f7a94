"""Floor 6: the store of scans and runs, jobs, lineage."""
