"""The worker: a supervisor (asyncio), its child (the model, and with it torch), its preparer (untrusted media).

supervisor.py   starts children, says how the worker is, drains it
session.py      one child while it lives: claims requests, feeds it one after the other
attempt.py      one lease: renewed, reported on, given up when it is cancelled or lost
inputs.py       what a request names, fetched and handed to the preparer
process.py      the supervisor's end of a pipe, and the process behind it
channel.py      the other end
messages.py     what goes through the pipes
spool.py        pixels on their way from the preparer to the child
child.py        runs the model; torch_engine.py is the model
preparer.py     decodes under limits
"""
