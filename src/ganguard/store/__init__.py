"""What is on disk: writing, finding, verifying, keeping and setting aside. Imports no torch.

- ``durable``       the calls that differ between operating systems
- ``envelope``      summary and digest in a checkpoint's zip comment
- ``summary``       what a checkpoint says about itself
- ``names``         what files are called
- ``pair``          checkpoints of two files: which parts lie in which
- ``shelf``         one run's place in a folder that several may share
- ``commit``        a new checkpoint: whole and durable, or not there
- ``aliases``       ``latest_checkpoint.pth``
- ``catalog``       what a folder holds, newest first
- ``runfile``       ``run.json``: which run and branch a folder belongs to
- ``search``        the newest valid checkpoint of a run
- ``plans``         what a person asks of a start, and what it will do
- ``named``         a start from a file that the person named
- ``resume``        from which checkpoint a start goes on: uses the four above
- ``set_aside``     moving out of the way without destroying
- ``retention``     which checkpoints may go: a pure function
- ``removal``       the only code that deletes checkpoints
- ``backup``        verified copies
- ``lock``          one writer
- ``interruption``  long work that can be broken off
"""
