"""The same subject on other backends and in other modes of execution."""
