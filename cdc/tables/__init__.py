"""Tables of a target, whatever database keeps them: how changes become rows there. A database is an `Engine`."""
