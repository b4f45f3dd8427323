"""What a search costs on many accelerators, by simulation: `python -m nas.scaling`.

The searcher, Tune's searcher and scheduler, the journal with its sync, what MLflow is sent and the grammar are the
real ones. Training, the gate and language models only take their time, in virtual seconds. What the driver does is
measured, and moves the virtual clock: it does one thing at a time, and an accelerator whose trial has something to
tell is idle until the driver comes to it.
"""
