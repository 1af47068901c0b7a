"""Workers: a supervisor per device and the processes that it starts.

supervisor.py      starts the engine process, reports how the worker is, drains it
session.py         the time of one engine process: claims requests and runs them one after the other
runs.py            what the engine process is told and says of each run
device.py          who has the device: a request of higher priority goes first
attempt.py         one attempt at a request: renews its lease, reports progress, notices a cancel or a lost lease
claimed.py         reads a claimed request and fits it to the model that is here
inputs.py          fetches a request's inputs and has the decode process decode them
guard.py           has the guard process expand prompts and check content
checkpoints.py     stores the newest checkpoint of a running request, fetches that of an earlier attempt
previews.py        publishes the newest preview of a running request
completion.py      records how an attempt ended
report.py          log lines and progress
process.py         starts a process and talks to it: the supervisor's end of the pipe
environment.py     what started processes inherit of the environment
channel.py         the started process's end of the pipe
messages.py        the messages and their encoding
spool.py           passes pixels from the decode process to the engine process as files
checkpoint_file.py the file of a checkpoint, and which video it belongs to
engine_process.py  runs the model
encoder.py         writes videos beside the next run
checkpoint_writer.py  writes checkpoints beside the denoising
decode_process.py  decodes untrusted files under limits
sandbox.py         contains the decode process
landlock.py        which files a process may open
seccomp.py         which system calls a process may make
guard_process.py   runs the prompt expander and the checkers
retries.py         the retry policy for the store
waiting.py         waits for several events
stopwatch.py       measures an attempt and its stages

May import: checkpoints, engine, errors, fal, files, guard, inputs, media, metrics, net, safety, settings, store,
traces, video.
"""
