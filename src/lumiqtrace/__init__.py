"""lumiqtrace."""
