"""From a recording to the server: it is accepted there, or counted here with the reason why not.

One event passes them in this order: the `exporter` is given it; `queue` keeps it; `pace` tells when the
thread of `worker` wakes, in which the `loop` runs; `batcher` makes it part of a `batch`; `spool` and
`spool_folder` put that on disk; `outbox` keeps it and the account, with `complaints` for the log; `circuit`
says when, `sending` sends it with the `losses`, `retry` says what the answer means; `transport` speaks
`http`, by a `proxy`, with its `roots`.
"""
