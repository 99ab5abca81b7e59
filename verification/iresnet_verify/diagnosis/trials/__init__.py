"""Code that is changed on trial: the changes, what they may not do, and what they repair."""
