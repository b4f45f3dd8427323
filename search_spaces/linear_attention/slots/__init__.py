"""The grammar's parts: one file per slot, one class per part.

A part is ordinary code in the shape of a token mixer: `__init__` holds the fields that only it needs, `init_state`
returns what it keeps over time, and its other methods go into the candidate word for word. `call` is the statement of
`forward` that calls it, where it is not the slot's usual one; `needs` and `gives` are the grammar's validity rules;
`family` is its word in the name of a candidate's family. The docstring is `Phrase: reason.`; the phrase describes the
child, the reason goes into the motivation. The grammar reads these files as text, so that proposing needs no JAX.
"""
