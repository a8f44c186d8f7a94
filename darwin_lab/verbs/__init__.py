"""Floor 7: the verbs of the shell, one module each, through the same rooms as the page.

`run(arguments, tick)` takes parsed arguments and gives a `Result`; it raises `LabError` for bad input. Target folders
are checked before any long work.
"""
