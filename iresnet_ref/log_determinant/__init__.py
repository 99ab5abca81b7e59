"""log det(I + J_g): exact, by series, by Russian roulette and by Arnoldi quadrature; bounds on each error."""
