"""Arrow Flight SQL: `messages` are its commands, `server` answers them."""
