"""What host and guest both use; copied into the image as a folder. Standard library only.

Read in the order in which a program passes through::

    limits.py         what one run may use, and the statuses it can end with
    wire.py           the bytes of a request and of a reply
    screen.py         which forbidden names a program uses
    literals.py       text -> value, for hostile text (with `constructors.py` and `arithmetic.py`)
    values.py         value -> canonical text, for hostile objects (with `scalars.py`); whether two values are equal
"""
