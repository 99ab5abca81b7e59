"""vᵀlog(I + J)v from a Krylov space: the process, the value, and what it is off by."""
