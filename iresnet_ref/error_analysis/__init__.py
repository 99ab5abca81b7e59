"""What rounding does to layers: bounds on the forward error and on Jacobian factors, and an estimate. Of a new layer: nothing proved."""
