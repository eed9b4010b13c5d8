"""How fast it is: every case against its floor in the same run, on hosts of the testbed.

    sudo .venv/bin/python -m tests.benchmarks --case A8 --rounds 5

All figures are ratios within one run: rounds of the floor and of `distribute` take turns.
"""
