"""What each format calls its dtypes, as NumPy's. bfloat16 and float8 are those of `ml_dtypes`, as in JAX."""

import ml_dtypes
import numpy as np

_NUMPY = (
  *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
  *("float16", "float32", "float64", "complex64", "complex128"),
)
_EIGHT = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")

BY_NAME: dict[str, np.dtype] = {name: np.dtype(name) for name in _NUMPY} | {
  name: np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", *_EIGHT)
}
"""By the name that NumPy, JAX and PyTorch give them."""

SAFETENSORS: dict[str, np.dtype] = {
  text: BY_NAME[name]
  for text, name in {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BF16": "bfloat16",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
  }.items()
}
"""By their names in a safetensors header. Those of 4 and 6 bits have no dtype of NumPy's and are refused."""

TORCH_STORAGES: dict[str, np.dtype] = {
  text + "Storage": BY_NAME[name]
  for text, name in {
    "Bool": "bool",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Half": "float16",
    "Float": "float32",
    "Double": "float64",
    "BFloat16": "bfloat16",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
  }.items()
}
"""By the class of PyTorch's storage."""
