"""Reproductions: a file that shows a failure again on its own."""
