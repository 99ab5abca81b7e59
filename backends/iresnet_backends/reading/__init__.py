"""How modules of frameworks are read: the graph of their forward pass, the rules for each function, and the comparison afterwards."""
