"""A demonstration that needs nothing but this package: a private server, a shop under load, and a comparison."""
