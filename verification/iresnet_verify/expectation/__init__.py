"""Is a random estimate unbiased? By enumeration, or by sampling."""
