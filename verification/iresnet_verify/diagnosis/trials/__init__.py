"""Code that is changed on trial: the changes, and what they may not do."""
