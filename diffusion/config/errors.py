"""The one exception that a command turns into a sentence instead of a traceback."""


class UserError(Exception):
  """A mistake that the caller can mend: a wrong config key, a missing checkpoint, a full disk.

  The message is one sentence that says what was given, what is allowed and what to do.
  Commands print it without a traceback and exit with status 2.

  >>> raise UserError("no checkpoint in /tmp/x: train first, or name another --workdir")
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: no checkpoint in /tmp/x: train first, or name another --workdir
  """
