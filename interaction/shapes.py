"""The dimension key and the array aliases.

In: nothing. Out: the letters that name every axis of every array in this project, used in
variable suffixes (``query_BTNH``), einsum strings and jaxtyping annotations alike.

| letter | axis                      | letter | axis                          |
|--------|---------------------------|--------|-------------------------------|
| ``B``  | lanes, or training batch  | ``E``  | experts                       |
| ``M``  | micro-turns               | ``A``  | experts per slot              |
| ``T``  | slots in this call        | ``V``  | vocabulary                    |
| ``S``  | cache slots               | ``R``  | mel frames per micro-turn     |
| ``L``  | layers                    | ``Z``  | mel channels                  |
| ``D``  | model width               | ``P``  | video patches                 |
| ``N``  | query heads               | ``W``  | samples                       |
| ``K``  | key/value heads           | ``C``  | chunks (of audio, of speech)  |
| ``H``  | head width                | ``G``  | query heads per kv head (N/K) |
| ``F``  | feed-forward width        | ``Q``  | relative-bias extent          |
"""

from jaxtyping import Array, Bool, Float, Int, UInt8

__all__ = ["Array", "Bool", "Float", "Int", "UInt8"]
