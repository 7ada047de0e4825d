"""The file of settings, `cdc.toml`: reading it, and saying at once what is wrong with it. No command is known here."""
