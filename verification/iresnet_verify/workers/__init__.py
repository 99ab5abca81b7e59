"""Worker processes: audits that survive a subject that hangs or dies."""
