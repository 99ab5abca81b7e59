"""Writers of reports: each reads results and writes one file."""
