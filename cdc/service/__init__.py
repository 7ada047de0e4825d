"""What a process that runs pipelines says of them to those who operate it."""
