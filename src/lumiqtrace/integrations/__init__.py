"""Web frameworks: one trace per request, and all that happens in it below that. Import what you use."""
