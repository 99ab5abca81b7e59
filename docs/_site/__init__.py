"""What makes the site's pages of the code: read by docs/conf.py, and by the tests of the repository."""
