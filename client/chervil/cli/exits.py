"""Exit codes of every verb; scripts rely on them.

A verb ends with one of these, or with 130 (128 + SIGINT) after Ctrl-C.
"""

OK = 0
#: A task failed (`call --wait`, `result`), a process that `dev` or `demo` started did, or a question was
#: answered with no, or none of several tasks could be run again, called off or dropped.
TASK_FAILED = 1
#: The command line, the app or a setting is wrong: typing the same again will not help.
USAGE = 2
#: Nothing there to talk to: no broker, no such task id (sysexits' EX_UNAVAILABLE).
UNAVAILABLE = 69
#: The time given with --timeout has passed; timeout(1) uses the same number.
TIMED_OUT = 124
INTERRUPTED = 130
