"""The grammar's parts: one file per slot, one class per part.

A part is ordinary code in the shape of a token mixer: `__init__` holds the fields that only it needs, and its methods
go into the candidate word for word. Its docstring is `Phrase: reason.`; the phrase describes the child, the reason
goes into the motivation. The grammar reads these files as text, so that proposing needs no JAX.
"""
