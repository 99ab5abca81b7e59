"""The bijections that stand between residual blocks: closed-form inverses and exact log-determinants."""
