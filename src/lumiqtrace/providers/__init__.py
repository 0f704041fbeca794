"""The provider libraries: which of their requests are model calls, and where the facts of an answer are."""
