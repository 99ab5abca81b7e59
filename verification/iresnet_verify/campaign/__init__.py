"""Campaigns: many audits, resumed where they stopped, none of them stale."""
