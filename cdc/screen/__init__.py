"""What people see of pipelines that run: a picture in a terminal, log lines elsewhere, and a last word."""
