"""One check, and one sentence, for sizes that a network cannot take."""


def check_divisible(sizes: tuple[int, ...], divisor: int, who: str) -> None:
  """Raises ValueError unless `divisor` divides every size, naming the nearest sizes that fit.

  >>> check_divisible((30, 32), 8, "a U-Net of 4 levels")
  Traceback (most recent call last):
  ...
  ValueError: An input of size 30 x 32 does not fit a U-Net of 4 levels: every side must be divisible by 8.
  The nearest sizes that fit are 24 x 32 and 32 x 32: crop, pad or resize the data, or change the network.
  """
  if all(size and size % divisor == 0 for size in sizes):
    return
  show = lambda values: " x ".join(map(str, values))
  smaller = tuple(size // divisor * divisor for size in sizes)
  larger = tuple(-(-size // divisor) * divisor for size in sizes)
  fitting = [smaller, larger] if all(smaller) else [larger]
  nearest = "size that fits is " if len(fitting) == 1 else "sizes that fit are "
  raise ValueError(
    f"An input of size {show(sizes)} does not fit {who}: every side must be divisible by {divisor}.\n"
    f"The nearest {nearest}{' and '.join(map(show, fitting))}: crop, pad or resize the data, or change the "
    "network."
  )
