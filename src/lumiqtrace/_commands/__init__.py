"""What the command line does once its arguments are read: it asks, and it shows. No application loads it.

Whether an event would arrive: `doctor`, with `reach` for the way to the server and `finding` for what each
step says. What became of those that did: `reader` fetches a trace, `terminal` draws it, `loss_view` tells
what was lost.
"""
