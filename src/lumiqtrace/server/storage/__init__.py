"""Where events are kept: the `Store` protocol, and SQLite behind it."""
