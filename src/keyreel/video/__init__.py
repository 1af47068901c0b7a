"""One video as plain data: sizes, timeline, recipes, the job that the engine runs and the events that it yields.

May import: errors.
"""
