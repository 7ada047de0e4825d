"""Speed, latency and memory against the server's own tools, side by side in one run."""
