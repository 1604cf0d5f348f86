"""What `azr doctor` runs inside: standard library only, one file a program, sent as text.

A function returns what it reached and raises what stopped it, and answers the same when its process calls it again.
"""
