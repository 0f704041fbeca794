"""Secrets out of what leaves: texts and values in, the same without them out, in time linear in their length.

One text passes them in this order: `redact` goes by the names of fields, `pairs` finds names inside of texts,
`notations` tells where the value after a name ends, `secrets` knows values by their looks. Their regular
expressions are `patterns`, compiled when a text needs them.
"""
