"""Timings, kept out of the tests: `make bench`, or one of them with `python -m bench training`.

Everything that is compared runs in turn, and the tables show medians and ratios: absolute times differ from machine
to machine and from minute to minute.
"""
