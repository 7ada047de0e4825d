"""What can be asked of a pipeline that runs, and what it does beside its work."""
