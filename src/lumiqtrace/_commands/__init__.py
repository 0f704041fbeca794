"""What the command line does once its arguments are read: it asks, and it shows. No application loads it.

Whether an event would arrive: `doctor`, with `reach` for the way to the server and `finding` for what each
step says. What became of those that did: `reader` asks a server, `terminal` draws a trace, `loss_view` tells
what was lost. `words` makes what others wrote fit for a terminal.
"""
