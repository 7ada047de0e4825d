"""Schema changes of every kind on real servers, between row changes, held against what arrives in the target.

`known` has scripts that were wrong once; `postgres` and `mysql` make statements at random from the servers' grammar. `round`
runs them while `cdc run` follows, stands still or is killed, and `comparison` reads both sides with code of its own.
"""
