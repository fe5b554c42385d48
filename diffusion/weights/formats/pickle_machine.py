"""Pickles as data: a machine for the opcodes that imports nothing and calls nothing but what it was given.

Python's own unpickler turns a name in the file into an object of that name and calls it. This one asks a
function of ours what stands for the name, and calls that alone; it also leaves large texts of bytes where
they are, so that a pickle of many gigabytes is read without them.

The opcodes are those of protocols 0 to 5: Lib/pickletools.py of CPython. Extension codes (`copyreg`) and
buffers out of band are refused, for they mean something outside the file.
"""

import dataclasses
import struct
from collections.abc import Callable
from typing import Any

from diffusion.weights.formats.mapped import Damaged, Source, Span, printable

SHORT = 1024
"""Bytes up to which a text of bytes is copied; longer ones become a `Span`."""

CALLS = 16
"""Entries that all calls together may be given, over the bytes of the pickle: a list that is copied again and
again would take time without end."""


@dataclasses.dataclass(frozen=True)
class Standin:
  """What stands for a name in a pickle.

  Attributes:
    name: the name, with its module.
    call: what is done where the file calls it; None if it is only mentioned.
  """

  name: str
  call: Callable[..., Any] | None = None


@dataclasses.dataclass(eq=False)
class Record:
  """An object of a class that is not ours: what the file says of it, and nothing done with it.

  Attributes:
    name: of its class, with the module.
    args: what it was to be made with.
    state: what its attributes were to be.
    items: entries that it was to be given, as a list or a dict of its own kind.
  """

  name: str
  args: tuple[Any, ...] = ()
  state: Any = None
  items: list[Any] = dataclasses.field(default_factory=list)

  def build(self, state: Any) -> None:
    """What `__setstate__` would be given."""
    self.state = state


def run(
  source: Source,
  start: int,
  stop: int,
  find: Callable[[str, str], Any],
  persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
  """(what a pickle says, the byte after it).

  Args:
    source: where it is.
    start: its first byte.
    stop: byte before which it ends.
    find: (module, name) -> what stands for it: a `Standin`, or a plain value. It raises for what is refused.
    persistent: what stands for an object that the pickle keeps elsewhere.
  Raises:
    Damaged: if the bytes are no pickle. Other errors of Python come through: `mapped.sound` is for them.
  """
  machine = _Machine(source, start, stop, find, persistent)
  while True:
    code = source.buffer[machine.skip(1)]
    if code == STOP:
      return machine.pop(), machine.at
    if code not in OPCODES:
      raise Damaged(f"byte {machine.at - 1} is no opcode of a pickle")
    OPCODES[code](machine)


class _Machine:
  def __init__(self, source, start, stop, find, persistent):
    self.source, self.at, self.stop = source, start, stop
    self.find, self.persistent = find, persistent
    self.stack, self.marks, self.memo = [], [], {}
    self.left = CALLS * (stop - start) + 4096

  def take(self, count):
    """The next bytes, copied."""
    first = self.skip(count)
    return self.source.bytes(first, count)

  def skip(self, count):
    """Where the next bytes are, which are passed over."""
    if not 0 <= count <= self.stop - self.at:
      raise Damaged(f"a pickle wants {count} bytes from byte {self.at}, and ends at byte {self.stop}")
    self.at += count
    return self.at - count

  def whole(self, kind):
    """The next number."""
    return struct.unpack_from(kind, self.source.buffer, self.skip(struct.calcsize(kind)))[0]

  def line(self):
    """The next bytes up to the end of their line."""
    end = self.source.buffer.find(b"\n", self.at, self.stop)
    if end < 0:
      raise Damaged(f"a line that begins at byte {self.at} has no end")
    return self.take(end + 1 - self.at)[:-1]

  def blob(self, count):
    """The next bytes, copied where they are few."""
    return self.take(count) if count <= SHORT else Span(self.source, self.skip(count), count)

  def push(self, value):
    self.stack.append(value)

  def pop(self):
    if len(self.stack) <= (self.marks[-1] if self.marks else 0):
      raise Damaged(f"a pickle takes more than it has at byte {self.at}")
    return self.stack.pop()

  def top(self):
    value = self.pop()
    self.stack.append(value)
    return value

  def marked(self):
    """What was pushed since the last mark, which is taken away."""
    if not self.marks:
      raise Damaged(f"a pickle has no mark at byte {self.at}")
    first = self.marks.pop()
    items, self.stack[first:] = self.stack[first:], []
    return items

  def recall(self, key):
    if key not in self.memo:
      raise Damaged(f"a pickle recalls object {key}, which it has not kept")
    self.push(self.memo[key])

  def call(self, made, args):
    """What a stand-in makes of arguments."""
    if type(made) is not Standin or made.call is None:
      name = made.name if type(made) is Standin else f"a {type(made).__name__}"
      raise Damaged(f"it calls {printable(name)}, which can only be mentioned")
    if type(args) is not tuple:
      raise Damaged(f"it calls {printable(made.name)} with no tuple")
    self.left -= sum(len(one) for one in args if type(one) in (list, tuple, dict, set, frozenset, str, bytes))
    self.left -= sum(one.length for one in args if type(one) is Span)
    if self.left < 0:
      raise Damaged("it copies the same lists again and again")
    return made.call(*args)

  def named(self, module, name):
    if type(module) is not str or type(name) is not str:
      raise Damaged("a name in a pickle is no text")
    self.push(self.find(module, name))

  def kept(self, key):
    if self.persistent is None:
      raise Damaged(f"it keeps {printable(key, 60)} outside of itself")
    self.push(self.persistent(key))

  def add(self, target, pairs):
    """Entries of a dict."""
    if len(pairs) % 2:
      raise Damaged("an entry of a dict has no value")
    if type(target) is Record:
      target.items.extend(zip(pairs[::2], pairs[1::2]))
      return
    if type(target) is not dict:
      raise Damaged(f"it sets an entry of a {type(target).__name__}")
    for key, value in zip(pairs[::2], pairs[1::2]):
      if key in target:
        raise Damaged(f"the key {printable(key, 60)} stands twice in a dict")
      target[key] = value

  def extend(self, target, items):
    """Entries of a list or a set."""
    if type(target) is list:
      target.extend(items)
    elif type(target) is set:
      target.update(items)
    elif type(target) is Record:
      target.items.extend(items)
    else:
      raise Damaged(f"it appends to a {type(target).__name__}")

  def build(self):
    """Attributes of an object. Those of dicts (`_metadata` of a state dict) mean nothing here."""
    state, target = self.pop(), self.top()
    if type(target) is not dict:
      target.build(state)


def _text(raw):
  """A text of Python 2, or a name."""
  try:
    return raw.decode("utf-8")
  except UnicodeDecodeError:
    return raw.decode("latin-1")


def _quoted(line):
  """The text between the quotes of a Python 2 string in protocol 0."""
  if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
    raise Damaged("a text of a pickle has no quotes")
  return _text(line[1:-1].decode("unicode_escape").encode("latin-1"))


def _int_line(line):
  known = {b"00": False, b"01": True}
  return known[line] if line in known else int(line)


def _pushes(read):
  return lambda m: m.push(read(m))


def _unicode(m, count):
  return m.take(count).decode("utf-8", "surrogatepass")


def _keep(m, key):
  m.memo[key] = m.top()


def _dict(m):
  items, found = m.marked(), {}
  m.add(found, items)
  m.push(found)


def _set_item(m):
  value, key = m.pop(), m.pop()
  m.add(m.top(), [key, value])


def _set_items(m):
  items = m.marked()
  m.add(m.top(), items)


def _append(m):
  value = m.pop()
  m.extend(m.top(), [value])


def _extend(m):
  items = m.marked()
  m.extend(m.top(), items)


def _tuple_of(count):
  def make(m):
    m.push(tuple([m.pop() for _ in range(count)][::-1]))

  return make


def _reduce(m):
  args, made = m.pop(), m.pop()
  m.push(m.call(made, args))


def _object(m):
  made, *args = m.marked()
  m.push(m.call(made, tuple(args)))


def _instance(m):
  module, name = _text(m.line()), _text(m.line())
  args = tuple(m.marked())
  m.push(m.call(m.find(module, name), args))


def _new_with_names(m):
  names, args, made = m.pop(), m.pop(), m.pop()
  if names != {}:
    raise Damaged("it makes an object with arguments by name")
  m.push(m.call(made, args))


def _global(m):
  module, name = _text(m.line()), _text(m.line())
  m.named(module, name)


def _stack_global(m):
  name, module = m.pop(), m.pop()
  m.named(module, name)


def _drop(m):
  if m.marks and m.marks[-1] == len(m.stack):
    m.marks.pop()
  else:
    m.pop()


def _long(m, kind):
  count = m.whole(kind)
  return int.from_bytes(m.take(count), "little", signed=True)


def _long_line(m):
  return int(m.line().rstrip(b"L"))


STOP = ord(".")

OPCODES: dict[int, Callable[[Any], None]] = {
  ord(code): do
  for code, do in {
    "\x80": lambda m: m.skip(1),  # protocol
    "\x95": lambda m: m.skip(8),  # a frame, which is only a hint
    "(": lambda m: m.marks.append(len(m.stack)),
    "0": _drop,
    "1": lambda m: m.marked() and None,
    "2": lambda m: m.push(m.top()),
    # numbers
    "N": _pushes(lambda m: None),
    "\x88": _pushes(lambda m: True),
    "\x89": _pushes(lambda m: False),
    "I": _pushes(lambda m: _int_line(m.line())),
    "L": _pushes(_long_line),
    "F": _pushes(lambda m: float(m.line())),
    "J": _pushes(lambda m: m.whole("<i")),
    "K": _pushes(lambda m: m.whole("<B")),
    "M": _pushes(lambda m: m.whole("<H")),
    "\x8a": _pushes(lambda m: _long(m, "<B")),
    "\x8b": _pushes(lambda m: _long(m, "<i")),
    "G": _pushes(lambda m: m.whole(">d")),
    # texts
    "S": _pushes(lambda m: _quoted(m.line())),
    "T": _pushes(lambda m: _text(m.take(m.whole("<i")))),
    "U": _pushes(lambda m: _text(m.take(m.whole("<B")))),
    "V": _pushes(lambda m: m.line().decode("raw_unicode_escape")),
    "X": _pushes(lambda m: _unicode(m, m.whole("<I"))),
    "\x8c": _pushes(lambda m: _unicode(m, m.whole("<B"))),
    "\x8d": _pushes(lambda m: _unicode(m, m.whole("<Q"))),
    "B": _pushes(lambda m: m.blob(m.whole("<I"))),
    "C": _pushes(lambda m: m.blob(m.whole("<B"))),
    "\x8e": _pushes(lambda m: m.blob(m.whole("<Q"))),
    "\x96": _pushes(lambda m: m.blob(m.whole("<Q"))),
    # containers
    "]": _pushes(lambda m: []),
    "}": _pushes(lambda m: {}),
    ")": _pushes(lambda m: ()),
    "\x8f": _pushes(lambda m: set()),
    "l": _pushes(lambda m: m.marked()),
    "t": _pushes(lambda m: tuple(m.marked())),
    "\x91": _pushes(lambda m: frozenset(m.marked())),
    "\x85": _tuple_of(1),
    "\x86": _tuple_of(2),
    "\x87": _tuple_of(3),
    "d": _dict,
    "a": _append,
    "e": _extend,
    "\x90": _extend,
    "s": _set_item,
    "u": _set_items,
    # what was kept
    "p": lambda m: _keep(m, int(m.line())),
    "q": lambda m: _keep(m, m.whole("<B")),
    "r": lambda m: _keep(m, m.whole("<I")),
    "\x94": lambda m: _keep(m, len(m.memo)),
    "g": lambda m: m.recall(int(m.line())),
    "h": lambda m: m.recall(m.whole("<B")),
    "j": lambda m: m.recall(m.whole("<I")),
    "P": lambda m: m.kept(_text(m.line())),
    "Q": lambda m: m.kept(m.pop()),
    # names, and what is done with them
    "c": _global,
    "\x93": _stack_global,
    "R": _reduce,
    "\x81": _reduce,
    "\x92": _new_with_names,
    "o": _object,
    "i": _instance,
    "b": lambda m: m.build(),
  }.items()
}
